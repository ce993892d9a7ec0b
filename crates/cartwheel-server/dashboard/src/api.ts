// Requests to the node that serves the page, and what it answers.

export interface Member { name: string; id: string; zone: string; host: string; http: string; resp: string; peers: string }

export interface Backlog { records: number; bytes: number }

export interface MemberStatus extends Member {
  weight: number;
  incarnation: string;
  leaving: boolean;
  state: "self" | "connected" | "disconnected";
  since: string | null;
  problem: string | null;
  boot: number | null;
  version: string | null;
  liveness: { status: "alive" | "suspect" | "down"; since: string; why: string } | null;
  clock_offset_ms: number | null;
  hints: Backlog | null;
}

export interface Cluster {
  cluster: string;
  cluster_name?: string;
  node: string;
  ring_version: string;
  epoch: { epoch: number; since: string; waits_for: string[] };
  protocol: { in_use: number; newest: number; waits_for: string[] };
  hints: { records: number; bytes: number; bytes_max: number; full: boolean };
  replication: { n: number; data_nodes: number; target: number; under_replicated: number; fewest: number };
  dot_collisions: number;
  members: MemberStatus[];
}

export interface Ring { version: string; partitions: number; owners: number[]; homes: number[][]; members: Member[] }

export interface Replicas {
  node: string;
  equal_since: string | null;
  unproven: number;
  replicas: { partition: number; n: number; peer: string; equal_since: string | null }[];
}

export interface Sizes { nodes: { node: string; replicas: number; keys: number | null; bytes: number | null }[] }

export interface Transfer {
  partition: number;
  config_version: string;
  from: string[];
  to: string[];
  state: "copying" | "joint";
  keys: number | null;
  bytes: number | null;
  copied_keys: number | null;
  copied_bytes: number | null;
  estimated: boolean;
  waits_for: string[];
}

export interface Transfers {
  version: string;
  partitions: number;
  transfers: Transfer[];
  bytes: number | null;
  copied_bytes: number | null;
  estimated: boolean;
  retired_replicas: { partition: number; node: string; waits_for: string[] }[];
  leaving: string[];
  waiting: string[];
}

export interface Settings {
  n: number;
  r: number;
  w: number;
  conflict: "siblings" | "lww";
  sloppy: boolean;
  durability: "fsync" | "os";
  max_value_bytes: number;
  placement?: string | { prefix: number };
  index?: boolean;
  warnings?: string[];
}

export interface Bucket extends Settings { bucket: string; keys?: number; bytes?: number }

export interface Buckets { defaults: Settings; buckets: Bucket[] }

export interface Staleness { node: string; predictions: { r: number; w: number; p99_ms: number; p999_ms: number }[] }

export interface Location { token: string; partition: number; preference_list: { node: string; role: "home" | "standin" }[] }

export interface Version {
  version: string;
  actor: string;
  counter: number;
  node: string;
  modified: string;
  deleted: boolean;
  bytes: number;
  expires: string | null;
}

export interface KeyReplica {
  node: string;
  role: "home" | "standin";
  state: "holds" | "nothing" | "silent" | "failed";
  problem: string | null;
  recovering: boolean;
  digest: string | null;
  holds: string[];
  replaced: string[];
}

export interface KeyReplicas {
  token: string;
  partition: number;
  n: number;
  siblings: string[];
  versions: Version[];
  clock: { actor: string; node: string; upto: number; beyond: number[] }[];
  replicas: KeyReplica[];
}

export interface Sibling {
  value?: string;
  deleted: boolean;
  content_type?: string;
  content_encoding?: string;
  ttl?: number;
  modified: string;
  version: string;
}

export interface Read { context: string; siblings: Sibling[] }

export interface Plan {
  version: string;
  applied: boolean;
  transfers: { partition: number; from: string[]; to: string[]; keys: number | null; bytes: number | null; estimated: boolean }[];
  replicas: number;
  keys: number | null;
  bytes: number | null;
  estimated: boolean;
  force_recovered: { partition: number; left: string[] }[];
  warnings: string[];
  capped: { node: string; weight: number; counts_as: number }[];
  nodes: { node: string; before: number; after: number }[];
}

export type MemberChange =
  | { op: "add"; node: string; weight?: number }
  | { op: "remove"; node: string }
  | { op: "replace"; node: string; with: string }
  | { op: "weight"; node: string; weight: number }
  | { op: "zone"; node: string; zone: string; host?: string };

/** A node's answer that it did not do what it was asked. */
export class Refused extends Error {
  constructor(readonly status: number, readonly code: string, message: string) {
    super(message);
  }
}

/** No answer came. */
export class Silent extends Error {}

const STORED = "cartwheel.authorization";
let onUnauthorized: (message: string) => void = () => {};

/** Says what to do when the node wants to know its user. */
export function whenUnauthorized(then: (message: string) => void) {
  onUnauthorized = then;
}

/** Keeps what the user signed in with, until the tab closes; null forgets it. */
export function signIn(authorization: string | null) {
  if (authorization === null) sessionStorage.removeItem(STORED);
  else sessionStorage.setItem(STORED, authorization);
}

export function isSignedIn(): boolean {
  return sessionStorage.getItem(STORED) !== null;
}

interface Options { method?: string; headers?: Record<string, string>; body?: BodyInit; timeout?: number }

/** Sends a request. Throws `Refused` or `Silent`. */
export async function send(path: string, options: Options = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  const authorization = sessionStorage.getItem(STORED);
  if (authorization !== null) headers.set("Authorization", authorization);
  let response: Response;
  try {
    response = await fetch(path, {
      method: options.method ?? "GET",
      headers,
      body: options.body,
      cache: "no-store",
      // With "omit" the browser asks for no password of its own.
      credentials: "omit",
      redirect: "error",
      signal: AbortSignal.timeout(options.timeout ?? 4_000),
    });
  } catch {
    throw new Silent("the node does not answer");
  }
  if (response.ok || response.status === 300) return response;
  const { code, message } = await reason(response);
  if (response.status === 401) onUnauthorized(message);
  throw new Refused(response.status, code, message);
}

async function reason(response: Response): Promise<{ code: string; message: string }> {
  const instead = { code: "unknown", message: `the node answered ${response.status} ${response.statusText}` };
  try {
    const said: unknown = await response.json();
    if (typeof said !== "object" || said === null) return instead;
    const { error, message } = said as { error?: unknown; message?: unknown };
    return { code: typeof error === "string" ? error : instead.code, message: typeof message === "string" ? message : instead.message };
  } catch {
    return instead;
  }
}

export async function json<T>(path: string, options: Options = {}): Promise<T> {
  const response = await send(path, { ...options, headers: { Accept: "application/json", ...options.headers } });
  try {
    return (await response.json()) as T;
  } catch {
    throw new Silent("the node's answer broke off");
  }
}

/** Sends a change of the cluster or of a bucket. */
export function change<T>(method: "PUT" | "POST", path: string, body: unknown): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  return json<T>(path, { method, headers, body: JSON.stringify(body), timeout: 20_000 });
}

/** The path of a key; slashes in it stay legible. */
export function keyPath(prefix: string, bucket: string, key: string): string {
  return `${prefix}/${encodeURIComponent(bucket)}/${encodeURIComponent(key).replaceAll("%2F", "/")}`;
}

/** Whether another node answers. The browser does not show what. */
export async function answers(address: string): Promise<boolean> {
  try {
    const at = `${location.protocol}//${address}/healthz`;
    await fetch(at, { mode: "no-cors", cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(2_000) });
    return true;
  } catch {
    return false;
  }
}
