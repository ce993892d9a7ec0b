// Small parts that several views use.

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** A heading with what belongs under it. */
export function Panel({ title, aside, children, id }: { title: string; aside?: ComponentChildren; children: ComponentChildren; id?: string }) {
  return (
    <section class="panel" aria-label={title} id={id}>
      <header><h2>{title}</h2>{aside !== undefined && <div class="aside">{aside}</div>}</header>
      {children}
    </section>
  );
}

export type Tone = "good" | "warn" | "bad" | "quiet";

/** A status by shape, colour and word. */
export function Status({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  const shape = { good: "●", warn: "◐", bad: "✕", quiet: "○" }[tone];
  return <span class={`status ${tone}`}><span aria-hidden="true">{shape}</span> {children}</span>;
}

/** A message that screen readers read out when it appears. */
export function Note({ tone, children, onClose }: { tone: Tone; children: ComponentChildren; onClose?: () => void }) {
  return (
    <div class={`note ${tone}`} role={tone === "bad" ? "alert" : "status"}>
      <div>{children}</div>
      {onClose && <button type="button" class="plain" onClick={onClose} aria-label="Dismiss">✕</button>}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return <p class="empty" role="status">Asking for {what}…</p>;
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** A choice of a few. */
export function Choice<T extends string>({ label, value, options, onChange }: { label: string; value: T; options: readonly (readonly [T, string])[]; onChange: (value: T) => void }) {
  return (
    <div class="choice" role="group" aria-label={label}>
      {options.map(([option, text]) => (
        <button type="button" key={option} aria-pressed={option === value} onClick={() => onChange(option)}>{text}</button>
      ))}
    </div>
  );
}

/** A dialog over the page; Escape closes it, and the focus goes back to where it was. */
export function Dialog({ title, onClose, children }: { title: string; onClose?: () => void; children: ComponentChildren }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = box.current;
    dialog?.showModal();
    // Closed, it gives the focus back; removed, it would not.
    return () => dialog?.close();
  }, []);
  const cancel = (event: Event) => {
    event.preventDefault();
    onClose?.();
  };
  return (
    <dialog ref={box} aria-label={title} onCancel={cancel}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

/** A line over the last scrapes; without axes, because the figure stands beside it. */
export function Spark({ values, label }: { values: (number | null)[]; label: string }) {
  const [width, height] = [160, 28];
  const max = Math.max(1e-9, ...values.map((value) => value ?? 0));
  const points = values.map((value, at) => {
    const x = values.length > 1 ? (at / (values.length - 1)) * width : width;
    return `${x.toFixed(1)} ${(height - 2 - ((value ?? 0) / max) * (height - 4)).toFixed(1)}`;
  });
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  return (
    <svg class="spark" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      {line && <path class="area" d={`${line}L${width} ${height}L0 ${height}Z`} />}
      {line && <path class="line" d={line} vector-effect="non-scaling-stroke" />}
    </svg>
  );
}

/** A part of a whole. */
export function Bar({ part, tone = "quiet" }: { part: number; tone?: Tone }) {
  const width = `${Math.max(0, Math.min(100, part * 100))}%`;
  return <span class={`bar ${tone}`} aria-hidden="true"><span style={{ width }} /></span>;
}
