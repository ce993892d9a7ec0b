// The buckets: sizes and settings, and changes of the settings.

import { useEffect, useState } from "preact/hooks";
import { type Bucket, change, json, type Settings, type Staleness } from "./api";
import { bytes, count, decoded, NOTHING } from "./format";
import { keepDraft, refresh, useLive } from "./live";
import { Dialog, Empty, Loading, Note, Panel, Status } from "./parts";
import { go } from "./route";

const DRAFT = "settings";

export function BucketsView() {
  const { buckets } = useLive();
  const [edited, setEdited] = useState<{ name: string; settings: Settings } | null>(null);
  const [created, setCreated] = useState("");
  const [done, setDone] = useState<string | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  // The settings as they are now, not as they were when the list was last asked for.
  const open = async (name: string) => {
    try {
      setEdited({ name, settings: await json<Settings>(`/v1/buckets/${name}`) });
      setProblem(null);
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  if (!buckets) return <Loading what="the buckets" />;
  const row = (name: string, bucket: Bucket | null, settings: Settings) => (
    <tr key={name}>
      <th scope="row">{bucket ? <a href={go({ tab: "keys", bucket: decoded(name) })}>{decoded(name)}</a> : <i>every other bucket</i>}</th>
      <td class="number">{bucket ? count(bucket.keys) : NOTHING}</td>
      <td class="number">{bucket ? bytes(bucket.bytes) : NOTHING}</td>
      <td class="number">{settings.n} / {settings.r} / {settings.w}</td>
      <td>{settings.conflict === "lww" ? "last write wins" : "siblings"}</td>
      <td>{settings.sloppy ? "sloppy" : "homes only"}</td>
      <td>{settings.durability}</td>
      <td class="number">{bytes(settings.max_value_bytes)}</td>
      <td>{settings.warnings?.length ? <span title={settings.warnings.join("\n")}><Status tone="warn">see settings</Status></span> : null}</td>
      <td class="number">{bucket && <button type="button" onClick={() => void open(name)} aria-label={`Settings of ${decoded(name)}`}>Settings…</button>}</td>
    </tr>
  );
  return (
    <div class="grid one">
      {problem && <Note tone="bad" onClose={() => setProblem(null)}>{problem}</Note>}
      {done && <Note tone="good" onClose={() => setDone(null)}>{done}</Note>}
      <Panel title="Buckets" aside={<span class="faint">keys and bytes once, however many replicas</span>}>
        <div class="scroll" tabIndex={0} role="region" aria-label="Table of buckets">
          <table>
            <thead><tr><th>bucket</th><th class="number">keys</th><th class="number">bytes</th><th class="number"><abbr title="replicas / replicas that answer a read / replicas that acknowledge a write">N / R / W</abbr></th><th>conflicts</th><th>quorum</th><th>durability</th><th class="number">largest value</th><th /><th /></tr></thead>
            <tbody>
              {buckets.buckets.map((bucket) => row(bucket.bucket, bucket, bucket))}
              {row("", null, buckets.defaults)}
            </tbody>
          </table>
        </div>
        {buckets.buckets.length === 0 && <Empty>No bucket holds data or has settings of its own. A bucket needs no creation: write a key.</Empty>}
        <form class="change" onSubmit={(event) => { event.preventDefault(); if (created) void open(encodeURIComponent(created)); }}>
          <label>Another bucket <input value={created} onInput={(event) => setCreated(event.currentTarget.value)} autocomplete="off" autocapitalize="off" spellcheck={false} /></label>
          <button type="submit" disabled={!created}>Settings…</button>
        </form>
      </Panel>
      {edited && <SettingsDialog {...edited} onClose={(text) => { setEdited(null); keepDraft(DRAFT, false); if (text) { setDone(text); refresh(); } }} />}
    </div>
  );
}

/** How soon reads see a write with the R and W that are chosen; nothing if the node has no prediction for them. */
function Freshness({ name, r, w }: { name: string; r: number; w: number }) {
  const [staleness, setStaleness] = useState<Staleness | null>(null);
  useEffect(() => {
    json<Staleness>(`/v1/buckets/${name}/staleness`).then(setStaleness, () => setStaleness(null));
  }, [name]);
  const predicted = staleness?.predictions.find((prediction) => prediction.r === r && prediction.w === w);
  if (!staleness || !predicted) return null;
  const ms = (value: number) => (value === 0 ? "at once" : `within ${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
  return (
    <p class="faint" role="status">
      With R {r} and W {w}, 99 % of reads would see a write {ms(predicted.p99_ms)}, 99.9 % {ms(predicted.p999_ms)}, after the latencies that {staleness.node} has measured.
    </p>
  );
}

function SettingsDialog({ name, settings, onClose }: { name: string; settings: Settings; onClose: (done?: string) => void }) {
  const [draft, setDraft] = useState(() => {
    const { n, r, w, conflict, sloppy, durability, max_value_bytes } = settings;
    return { n: String(n), r: String(r), w: String(w), conflict, sloppy, durability, max_value_bytes: String(max_value_bytes) };
  });
  const [problem, setProblem] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const edit = (fields: Partial<typeof draft>) => {
    setDraft({ ...draft, ...fields });
    keepDraft(DRAFT, true);
  };
  const patch = () => {
    const changed: Record<string, unknown> = {};
    for (const field of ["n", "r", "w", "max_value_bytes"] as const) if (draft[field] !== String(settings[field])) changed[field] = Number(draft[field]);
    for (const field of ["conflict", "sloppy", "durability"] as const) if (draft[field] !== settings[field]) changed[field] = draft[field];
    return changed;
  };
  const save = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const now = await change<Settings>("PUT", `/v1/buckets/${name}`, patch());
      onClose(`Settings of ${decoded(name)} saved.${now.warnings?.length ? ` ${now.warnings.join(" ")}` : ""}`);
    } catch (error) {
      setProblem((error as Error).message);
      setBusy(false);
    }
  };
  const number = (field: "n" | "r" | "w" | "max_value_bytes", label: string, hint: string) => (
    <label>{label} <input type="number" min="1" required value={draft[field]} onInput={(event) => edit({ [field]: event.currentTarget.value })} /><small>{hint}</small></label>
  );
  return (
    <Dialog title={`Settings of ${decoded(name)}`} onClose={() => onClose()}>
      {settings.warnings?.map((warning) => <Note tone="warn" key={warning}>{warning}</Note>)}
      {problem && <Note tone="bad">{problem}</Note>}
      <form class="settings" onSubmit={save}>
        {number("n", "N", "replicas of each key")}
        {number("r", "R", "that answer a read")}
        {number("w", "W", "that acknowledge a write")}
        <label>Conflicts <select value={draft.conflict} onChange={(event) => edit({ conflict: event.currentTarget.value as Settings["conflict"] })}><option value="siblings">siblings: clients merge</option><option value="lww">last write wins</option></select></label>
        <label>Quorum <select value={draft.sloppy ? "sloppy" : "homes"} onChange={(event) => edit({ sloppy: event.currentTarget.value === "sloppy" })}><option value="sloppy">sloppy: stand-ins take writes</option><option value="homes">homes only</option></select></label>
        <label>Durability <select value={draft.durability} onChange={(event) => edit({ durability: event.currentTarget.value as Settings["durability"] })}><option value="fsync">fsync: synced when acknowledged</option><option value="os">os: in the system's hands</option></select></label>
        {number("max_value_bytes", "Largest value", "bytes")}
        <Freshness name={name} r={Number(draft.r)} w={Number(draft.w)} />
        <div class="buttons">
          <button type="button" onClick={() => onClose()}>Cancel</button>
          <button type="submit" class="main" disabled={isBusy || Object.keys(patch()).length === 0}>Save</button>
        </div>
      </form>
    </Dialog>
  );
}
