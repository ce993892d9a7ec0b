// The node's metrics: parsed from their text, and compared over time.

/** The metrics that the dashboard reads. */
export const NAMES = {
  requests: "cartwheel_requests_total",
  durations: "cartwheel_request_duration_seconds_bucket",
  readSiblings: "cartwheel_read_siblings",
  repairs: "cartwheel_repairs_total",
  exchanges: "cartwheel_exchanges_total",
  hintsDelivered: "cartwheel_hints_delivered_total",
  tombstones: "cartwheel_tombstones",
  collected: "cartwheel_tombstones_collected_total",
  underWay: "cartwheel_shard_requests_under_way",
  refusals: "cartwheel_shard_inbox_refusals_total",
  diskFull: "cartwheel_disk_full",
  storeFailed: "cartwheel_store_failed",
  connections: "cartwheel_http_connections",
  respConnections: "cartwheel_resp_connections",
  clockRefuses: "cartwheel_clock_refuses_writes",
} as const;

export interface Sample { labels: Record<string, string>; value: number }

/** All samples of a scrape, by name. */
export type Scrape = Map<string, Sample[]>;

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export function parse(text: string): Scrape {
  const scrape: Scrape = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    const [, name, labels, value] = LINE.exec(line) ?? [];
    if (name === undefined) continue;
    const sample: Sample = { labels: {}, value: Number(value) };
    for (const [, label, quoted] of (labels ?? "").matchAll(LABEL)) sample.labels[label!] = quoted!.replace(/\\(.)/g, "$1");
    const samples = scrape.get(name);
    if (samples) samples.push(sample);
    else scrape.set(name, [sample]);
  }
  return scrape;
}

/** The sum of a metric's samples with these labels; null if the node does not have the metric. */
export function sum(scrape: Scrape | undefined, name: string, labels: Record<string, string> = {}): number | null {
  const samples = scrape?.get(name);
  if (!samples) return null;
  const fits = (sample: Sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value);
  return samples.filter(fits).reduce((total, sample) => total + sample.value, 0);
}

/** A scrape and when it was made, in milliseconds. */
export interface Timed { at: number; scrape: Scrape }

/** How much a counter grew a second between two scrapes. A restart counts from zero. */
export function rate(from: Timed, to: Timed, name: string, labels: Record<string, string> = {}): number | null {
  const [before, after] = [sum(from.scrape, name, labels), sum(to.scrape, name, labels)];
  if (after === null || to.at <= from.at) return null;
  const grown = after - (before ?? 0);
  return (grown < 0 ? after : grown) / ((to.at - from.at) / 1_000);
}

/** The quantile of a histogram's observations between two scrapes, within its buckets by proportion; null without observations. */
export function quantile(from: Timed, to: Timed, operation: string, q: number): number | null {
  const buckets = (scrape: Scrape) => {
    const samples = scrape.get(NAMES.durations)?.filter((sample) => sample.labels.operation === operation) ?? [];
    return new Map(samples.map((sample) => [sample.labels.le === "+Inf" ? Infinity : Number(sample.labels.le), sample.value]));
  };
  const [before, after] = [buckets(from.scrape), buckets(to.scrape)];
  const ends = [...after.keys()].sort((a, b) => a - b);
  const counts = ends.map((end) => after.get(end)! - (before.get(end) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (total <= 0) return null;
  const at = counts.findIndex((count) => count >= q * total);
  const [low, high] = [at > 0 ? ends[at - 1]! : 0, ends[at]!];
  if (high === Infinity) return low;
  const below = at > 0 ? counts[at - 1]! : 0;
  return low + (high - low) * ((q * total - below) / Math.max(1e-9, counts[at]! - below));
}
