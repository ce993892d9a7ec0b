// What the page knows of the cluster, asked of its node again and again. It rests while the page is hidden.

import { useEffect, useState } from "preact/hooks";
import { answers, type Buckets, type Cluster, json, Refused, type Replicas, type Ring, send, Silent, type Sizes, type Transfers } from "./api";
import { parse, type Timed } from "./metrics";
import { go, route } from "./route";

/** How many scrapes are kept: three minutes. */
const SCRAPES_MAX = 90;
const BEAT_MS = 2_000;
/** While the node does not answer, it is asked more often. */
const MISSED_BEAT_MS = 700;
/** So many requests without an answer mean that the node is lost. */
const MISSED_MAX = 2;
/** How long the page says where it goes before it goes. */
const LEAVE_AFTER_MS = 2_500;

export interface Loss {
  node: string;
  /** The node that answers instead, once it is found. */
  other: { name: string; http: string } | null;
  /** How many nodes were tried in vain. */
  tried: number;
}

export interface Live {
  cluster?: Cluster;
  ring?: Ring;
  transfers?: Transfers;
  replicas?: Replicas;
  sizes?: Sizes;
  buckets?: Buckets;
  scrapes: Timed[];
  /** When the node answered last, in milliseconds. */
  answeredAt: number;
  loss: Loss | null;
  /** Why the user has to sign in. */
  signIn: string | null;
  /** What the node refused to show. */
  refused: string | null;
  now: number;
}

export const live: Live = { scrapes: [], answeredAt: 0, loss: null, signIn: null, refused: null, now: Date.now() };

const listeners = new Set<() => void>();

export function changed() {
  live.now = Date.now();
  for (const listener of listeners) listener();
}

/** The state of the page; the component is drawn again when it changes. */
export function useLive(): Live {
  const [, again] = useState(0);
  useEffect(() => {
    const listener = () => again((count) => count + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return live;
}

interface Job { every: () => number; run: () => Promise<void>; due: number; isRunning: boolean; refusal: string | null }

const job = (every: () => number, run: () => Promise<void>): Job => ({ every, run, due: 0, isRunning: false, refusal: null });
const isMoving = () => (live.transfers?.transfers.length ?? 0) > 0;
const isOn = (tab: string) => route().tab === tab;

const jobs: Job[] = [
  job(() => BEAT_MS, async () => {
    const cluster = await json<Cluster>("/v1/cluster");
    cluster.members.sort(byName);
    live.cluster = cluster;
  }),
  job(() => BEAT_MS, async () => {
    const scrape = parse(await (await send("/metrics")).text());
    live.scrapes = [...live.scrapes, { at: Date.now(), scrape }].slice(-SCRAPES_MAX);
  }),
  job(() => (isMoving() ? BEAT_MS : 10_000), async () => void (live.ring = sorted(await json<Ring>("/v1/cluster/ring")))),
  job(() => (isMoving() || isOn("members") ? BEAT_MS : 10_000), async () => void (live.transfers = await json<Transfers>("/v1/cluster/transfers"))),
  job(() => 10_000, async () => void (live.replicas = await json<Replicas>("/v1/cluster/replicas"))),
  job(() => 15_000, async () => void (live.sizes = await json<Sizes>("/v1/cluster/sizes"))),
  job(() => (isOn("buckets") ? 4_000 : 30_000), async () => void (live.buckets = await json<Buckets>("/v1/buckets"))),
];

const byName = (a: { name: string }, b: { name: string }) => a.name.localeCompare(b.name, "en", { numeric: true });

/** The ring with its members by name instead of by id. */
function sorted(ring: Ring): Ring {
  const members = [...ring.members].sort(byName);
  const to = ring.members.map((member) => members.indexOf(member));
  const moved = (at: number) => to[at] ?? at;
  return { ...ring, members, owners: ring.owners.map(moved), homes: ring.homes.map((homes) => homes.map(moved)) };
}

/** Asks for everything again now. */
export function refresh() {
  for (const each of jobs) each.due = 0;
  beat();
}

async function carryOut(each: Job) {
  each.isRunning = true;
  const begun = Date.now();
  try {
    await each.run();
    live.answeredAt = Date.now();
    missed = 0;
    live.signIn = null;
    if (live.loss !== null) found();
    each.refusal = null;
  } catch (error) {
    if (error instanceof Silent) {
      if (each === jobs[0]) miss();
    } else if (error instanceof Refused) {
      live.answeredAt = Date.now();
      each.refusal = error.status === 401 ? null : error.message;
    } else {
      throw error;
    }
  } finally {
    each.isRunning = false;
    live.refused = jobs.find((job) => job.refusal !== null)?.refusal ?? null;
    each.due = begun + (missed > 0 ? MISSED_BEAT_MS : each.every());
    changed();
  }
}

function beat() {
  if (document.hidden || live.signIn !== null) return;
  const now = Date.now();
  for (const each of jobs) {
    // While the node is silent, one request at a time finds out whether it is back.
    if (!each.isRunning && each.due <= now && (missed === 0 || each === jobs[0])) void carryOut(each);
  }
}

let missed = 0;
let seeking = 0;

function miss() {
  missed += 1;
  if (missed < MISSED_MAX || live.loss !== null || live.cluster === undefined) return;
  live.loss = { node: live.cluster.node, other: null, tried: 0 };
  void seek((seeking += 1));
}

/** The node answers again. */
function found() {
  live.loss = null;
  seeking += 1;
}

/** Looks for a node that answers, and goes on there. */
async function seek(attempt: number) {
  const rank = (status: string | undefined) => ["alive", "suspect", undefined, "down"].indexOf(status);
  while (attempt === seeking && live.loss !== null) {
    const others = (live.cluster?.members ?? []).filter((member) => member.state !== "self");
    others.sort((a, b) => rank(a.liveness?.status) - rank(b.liveness?.status));
    for (const { name, http } of others) {
      if (await answers(http)) {
        if (attempt !== seeking || live.loss === null) return;
        live.loss = { ...live.loss, other: { name, http } };
        changed();
        if (!hasDraft()) setTimeout(() => attempt === seeking && !hasDraft() && goOn(), LEAVE_AFTER_MS);
        return;
      }
      if (attempt !== seeking || live.loss === null) return;
      live.loss = { ...live.loss, tried: live.loss.tried + 1 };
      changed();
    }
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
}

/** Goes on to the same view on the node that answers instead of the lost one. */
export function goOn() {
  const other = live.loss?.other;
  if (other) location.replace(`${location.protocol}//${other.http}/${go({ ...route(), lost: live.loss!.node })}`);
}

/** What the user has typed and would lose if the page went on to another node. */
const drafts = new Set<string>();

export function keepDraft(name: string, isKept: boolean) {
  if (isKept) drafts.add(name);
  else drafts.delete(name);
}

export const hasDraft = () => drafts.size > 0;

export function start() {
  beat();
  setInterval(beat, 250);
  // Times like "5 s ago" go on without answers.
  setInterval(() => !document.hidden && changed(), 5_000);
  document.addEventListener("visibilitychange", () => !document.hidden && refresh());
}
