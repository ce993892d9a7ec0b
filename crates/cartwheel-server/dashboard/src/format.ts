// Figures, times and bytes as text.

export const NOTHING = "–";

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count: number | null | undefined): string {
  if (count == null) return NOTHING;
  let unit = 0;
  while (count >= 999.5 && unit < UNITS.length - 1) {
    count /= 1_000;
    unit += 1;
  }
  return `${unit === 0 || count >= 99.5 ? Math.round(count) : count.toFixed(1)} ${UNITS[unit]}`;
}

export function count(value: number | null | undefined): string {
  return value == null ? NOTHING : Math.round(value).toLocaleString("en-GB").replaceAll(",", "\u202f");
}

export function rate(value: number | null): string {
  if (value === null) return NOTHING;
  return value > 0 && value < 10 ? value.toFixed(1) : count(value);
}

export function milliseconds(seconds: number | null): string {
  if (seconds === null) return NOTHING;
  const ms = seconds * 1_000;
  return ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : count(ms);
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** How long ago a time was. */
export function ago(time: string | null | undefined, now: number): string {
  if (!time) return NOTHING;
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1_000));
  return seconds < 5 ? "just now" : `${span(seconds)} ago`;
}

export function span(seconds: number): string {
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 6_000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

/** The text in bytes, if they are text that a reader can tell from others: UTF-8 without control characters. */
export function asText(value: Uint8Array): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
    return /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/.test(text) ? null : text;
  } catch {
    return null;
  }
}

const SHOWN_TEXT = 16_384;
const SHOWN_BYTES = 512;

/** The beginning of a value for people: its text, or its bytes in hexadecimal. */
export function shown(value: Uint8Array): { text: string; isHex: boolean; left: number } {
  const text = asText(value);
  if (text !== null) return { text: text.slice(0, SHOWN_TEXT), isHex: false, left: Math.max(0, text.length - SHOWN_TEXT) };
  const lines = [];
  for (let at = 0; at < Math.min(value.length, SHOWN_BYTES); at += 16) {
    const row = [...value.subarray(at, Math.min(at + 16, SHOWN_BYTES))];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const plain = row.map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${plain}`);
  }
  return { text: lines.join("\n"), isHex: true, left: Math.max(0, value.length - SHOWN_BYTES) };
}

/** Whether a percent-encoded name is text. */
export function isText(name: string): boolean {
  try {
    return decodeURIComponent(name).length >= 0;
  } catch {
    return false;
  }
}

/** A percent-encoded name as text; as it is if it is not UTF-8. */
export function decoded(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}
