// The first view: what matters now, the ring, the nodes, the load, and repair.

import { useEffect, useState } from "preact/hooks";
import { json, keyPath, type Location, type MemberStatus } from "./api";
import { ago, bytes, count, milliseconds, NOTHING, plural, rate as perSecond } from "./format";
import { live, type Live, useLive } from "./live";
import { NAMES, quantile, rate, sum, type Timed } from "./metrics";
import { Bar, Choice, Empty, Loading, Panel, Spark, Status, type Tone } from "./parts";
import { type By, Legend, names, RingPicture } from "./ring";
import { go } from "./route";

export function ClusterView() {
  const { cluster } = useLive();
  if (!cluster) return <Loading what="the cluster" />;
  return (
    <div class="grid">
      <Verdict />
      <div class="column">
        <RingPanel />
      </div>
      <div class="column">
        <Nodes />
        <Load />
        <Repair />
      </div>
    </div>
  );
}

/** What is wrong, or that nothing is. */
function problems({ cluster, transfers, buckets, scrapes }: Live): { tone: Tone; text: string }[] {
  if (!cluster) return [];
  const found: { tone: Tone; text: string }[] = [];
  const add = (tone: Tone, text: string) => found.push({ tone, text });
  for (const member of cluster.members) {
    const status = member.liveness?.status;
    if (status === "down") add("bad", `${member.name} is down: ${member.liveness!.why}`);
    else if (status === "suspect") add("warn", `${member.name} is suspected to be down`);
    else if (member.problem) add("warn", `${member.name}: ${member.problem}`);
    if (Math.abs(member.clock_offset_ms ?? 0) >= 500) add("warn", `${member.name}'s clock is ${count(member.clock_offset_ms)} ms off`);
  }
  const { under_replicated, fewest } = cluster.replication;
  if (under_replicated > 0) add("bad", `${plural(under_replicated, "partition")} with too few homes, at least ${fewest}`);
  if (cluster.dot_collisions > 0) add("bad", `${plural(cluster.dot_collisions, "version")} with two contents: a broken disk or a copied data directory`);
  if (cluster.hints.full) add("bad", "no room for further hints on this node");
  const scrape = scrapes.at(-1)?.scrape;
  if ((sum(scrape, NAMES.diskFull) ?? 0) > 0) add("bad", `the disk of ${cluster.node} is full`);
  if ((sum(scrape, NAMES.storeFailed) ?? 0) > 0) add("bad", `a store of ${cluster.node} has failed`);
  if ((sum(scrape, NAMES.clockRefuses) ?? 0) > 0) add("bad", `${cluster.node} refuses writes because of its clock`);
  if (transfers?.transfers.length) add("warn", `${plural(transfers.transfers.length, "partition")} under way to other homes`);
  for (const name of transfers?.leaving ?? []) add("warn", `${name} is leaving`);
  for (const name of transfers?.waiting ?? []) add("quiet", `${name} waits to join`);
  for (const bucket of buckets?.buckets ?? []) for (const warning of bucket.warnings ?? []) add("warn", `bucket ${bucket.bucket}: ${warning}`);
  if (cluster.protocol.waits_for.length) add("quiet", `upgrade not complete: ${cluster.protocol.waits_for.join(", ")}`);
  return found;
}

function Verdict() {
  const all = useLive();
  const found = problems(all);
  const { replication, members, epoch } = all.cluster!;
  const isBad = found.some(({ tone }) => tone === "bad");
  const answering = members.filter((member) => member.state === "self" || member.liveness?.status === "alive").length;
  return (
    <section class="verdict" aria-label="State of the cluster">
      <div class="figures">
        <Figure name="nodes" value={`${answering}`} of={`${members.length} answer`} />
        <Figure name="partitions" value={count(all.ring?.partitions)} of={`${replication.n} homes each`} />
        <Figure name="replicas equal as of" value={ago(all.replicas?.equal_since, all.now)} of={all.replicas?.unproven ? `${count(all.replicas.unproven)} not compared yet` : `those of ${all.cluster!.node}`} />
        <Figure name="epoch" value={count(epoch.epoch)} of={`for ${ago(epoch.since, all.now).replace(" ago", "")}`} />
        <Figure name="hints" value={count(all.cluster!.hints.records)} of={`on ${all.cluster!.node}`} />
      </div>
      <div aria-live="polite">
        {found.length === 0
          ? <p><Status tone="good">Everything is well.</Status></p>
          : <ul class={isBad ? "bad" : ""}>{found.map(({ tone, text }) => <li key={text}><Status tone={tone}>{text}</Status></li>)}</ul>}
      </div>
    </section>
  );
}

function Figure({ name, value, of }: { name: string; value: string; of: string }) {
  return <div class="figure"><b>{value}</b><span>{name}</span><small>{of}</small></div>;
}

/** Looks up where a key lives, shortly after its name was typed. */
export function useLocation(bucket: string, key: string): { located: Location | null; problem: string | null } {
  const [found, setFound] = useState<{ located: Location | null; problem: string | null }>({ located: null, problem: null });
  useEffect(() => {
    if (!bucket || !key) return setFound({ located: null, problem: null });
    let isOver = false;
    const timer = setTimeout(() => {
      json<Location>(keyPath("/v1/cluster/locate", bucket, key)).then(
        (located) => isOver || setFound({ located, problem: null }),
        (error: Error) => isOver || setFound({ located: null, problem: error.message }),
      );
    }, 150);
    return () => { isOver = true; clearTimeout(timer); };
  }, [bucket, key, live.cluster?.ring_version]);
  return found;
}

function RingPanel() {
  const { ring, cluster } = useLive();
  const [by, setBy] = useState<By>("node");
  const [wanted, setWanted] = useState("");
  const [partition, setPartition] = useState<number | null>(null);
  const slash = wanted.indexOf("/");
  const [bucket, key] = slash < 0 ? ["", ""] : [wanted.slice(0, slash), wanted.slice(slash + 1)];
  const { located, problem } = useLocation(bucket, key);
  const homes = located?.preference_list.filter((replica) => replica.role === "home").map((replica) => replica.node);
  const choice = <Choice label="Colours" value={by} options={[["node", "by node"], ["zone", "by zone"]]} onChange={setBy} />;
  return (
    <Panel title="Ring" aside={choice} id="ring">
      {!ring || !cluster ? <Loading what="the ring" /> : (
        <>
          <div class="ring-box">
            <RingPicture ring={ring} by={by} located={located} onPartition={setPartition}
              label={`The ring: ${ring.partitions} partitions on ${ring.members.length} nodes. Arrow keys step through the partitions.`} />
            <div class="ring-middle" aria-hidden="true">
              {located
                ? <><b>{located.partition}</b><span>partition</span><code>{located.token.slice(0, 12)}…</code></>
                : partition !== null
                  ? <><b>{partition}</b><span>partition</span><small>{names(ring.homes[partition] ?? [], ring.members)}</small></>
                  : <><b>{ring.partitions}</b><span>partitions</span></>}
            </div>
          </div>
          <Legend members={ring.members} by={by} strong={homes && new Set(homes)} />
          <form class="find" onSubmit={(event) => { event.preventDefault(); if (located) location.hash = go({ tab: "keys", bucket, key }); }}>
            <label for="find-key">Find a key</label>
            <input id="find-key" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} placeholder="bucket/key" autocomplete="off" autocapitalize="off" spellcheck={false} />
            <button type="submit" disabled={!located}>Inspect</button>
          </form>
          <p class="located-text" role="status">
            {problem ?? (located && homes
              ? <>Token <code>{located.token}</code>, partition {located.partition}: {homes.join(", ")}
                {located.preference_list.length > homes.length && <span class="faint">, then {located.preference_list.slice(homes.length, homes.length + 3).map((replica) => replica.node).join(", ")}</span>}</>
              : <span class="faint">The outer band is the first home of each partition, the next one the second, and so on.</span>)}
          </p>
        </>
      )}
    </Panel>
  );
}

export function verdictOn(member: MemberStatus): { tone: Tone; text: string } {
  if (member.leaving) return { tone: "warn", text: "leaving" };
  if (member.state === "self") return member.problem ? { tone: "warn", text: "not ready" } : { tone: "good", text: "this node" };
  const status = member.liveness?.status;
  if (status === "down") return { tone: "bad", text: "down" };
  if (status === "suspect") return { tone: "warn", text: "suspect" };
  return member.state === "connected" ? { tone: "good", text: "alive" } : { tone: "warn", text: "not connected" };
}

function Nodes() {
  const { cluster, sizes, ring, replicas, transfers, scrapes, now } = useLive();
  const most = Math.max(1, ...(sizes?.nodes ?? []).map((node) => node.bytes ?? 0));
  const scrape = scrapes.at(-1)?.scrape;
  const movesOf = (name: string) => (transfers?.transfers ?? []).filter(({ from, to }) => from.includes(name) !== to.includes(name)).length;
  const equalWith = (name: string) => {
    const with_ = (replicas?.replicas ?? []).filter((replica) => replica.peer === name);
    if (with_.some((replica) => replica.equal_since === null)) return "never, in part";
    const oldest = with_.map((replica) => replica.equal_since!).sort()[0];
    return oldest === undefined ? NOTHING : ago(oldest, now);
  };
  return (
    <Panel title="Nodes" aside={<span class="faint">as {cluster!.node} sees them</span>}>
      <div class="scroll" tabIndex={0} role="region" aria-label="Table of nodes">
        <table class="nodes">
          <thead>
            <tr><th>node</th><th>zone</th><th>status</th><th class="number">replicas</th><th class="number">data</th><th class="number">clock</th><th class="number">hints for it</th><th class="number">moves</th><th>equal as of</th><th>version</th></tr>
          </thead>
          <tbody>
            {cluster!.members.map((member) => {
              const { tone, text } = verdictOn(member);
              const size = sizes?.nodes.find((node) => node.node === member.name);
              const homes = ring?.homes.filter((list) => list.some((at) => ring.members[at]?.name === member.name)).length;
              const isSelf = member.state === "self";
              const isFull = isSelf && (sum(scrape, NAMES.diskFull) ?? 0) > 0;
              return (
                <tr key={member.id} class={tone}>
                  <th scope="row">{isSelf ? member.name : <a href={`${location.protocol}//${member.http}/`}>{member.name}</a>}</th>
                  <td>{member.zone || NOTHING}</td>
                  <td title={member.liveness?.why ?? member.problem ?? ""}><Status tone={tone}>{text}</Status></td>
                  <td class="number">{count(homes)}</td>
                  <td class="number">
                    {size ? bytes(size.bytes) : NOTHING}{isFull && <Status tone="bad">full</Status>}
                    <Bar part={(size?.bytes ?? 0) / most} />
                  </td>
                  <td class="number">{isSelf ? NOTHING : member.clock_offset_ms === null ? NOTHING : `${member.clock_offset_ms > 0 ? "+" : ""}${member.clock_offset_ms} ms`}</td>
                  <td class="number">{member.hints ? count(member.hints.records) : NOTHING}{member.hints !== null && member.hints.records > 0 && <small>{bytes(member.hints.bytes)}</small>}</td>
                  <td class="number">{count(movesOf(member.name))}</td>
                  <td>{isSelf ? NOTHING : equalWith(member.name)}</td>
                  <td>{member.version ?? NOTHING}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}

/** Rates are over the last ten seconds or so. */
const OVER = 5;

function Load() {
  const { scrapes, cluster } = useLive();
  const to = scrapes.at(-1);
  const from = scrapes.at(-1 - OVER) ?? scrapes[0];
  const isKnown = from !== undefined && to !== undefined && from !== to;
  const series = (operation: string) => scrapes.slice(1).map((scrape, at) => rate(scrapes[at]!, scrape, NAMES.requests, { operation }));
  const failed = (from: Timed, to: Timed, operation: string) => {
    const all = rate(from, to, NAMES.requests, { operation }) ?? 0;
    const good = ["ok", "siblings", "not_found"].reduce((sum, outcome) => sum + (rate(from, to, NAMES.requests, { operation, outcome }) ?? 0), 0);
    return all - good;
  };
  return (
    <Panel title="Requests" aside={<span class="faint">through {cluster!.node}, last 10 s</span>}>
      {!isKnown ? <Loading what="a second sample" /> : (
        <div class="scroll" tabIndex={0} role="region" aria-label="Table of requests">
          <table class="load">
            <thead><tr><th>operation</th><th class="number">per s</th><th>3 min</th><th class="number">p50 ms</th><th class="number">p95 ms</th><th class="number">p99 ms</th><th class="number">errors per s</th></tr></thead>
            <tbody>
              {["get", "put", "delete"].map((operation) => (
                <tr key={operation}>
                  <th scope="row">{operation}</th>
                  <td class="number strong">{perSecond(rate(from, to, NAMES.requests, { operation }) ?? 0)}</td>
                  <td><Spark values={series(operation)} label={`${operation} requests over three minutes`} /></td>
                  {[0.5, 0.95, 0.99].map((q) => <td class="number" key={q}>{milliseconds(quantile(from, to, operation, q))}</td>)}
                  <td class="number">{perSecond(Math.max(0, failed(from, to, operation)))}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <p class="faint foot">
        {plural(sum(to?.scrape, NAMES.underWay) ?? 0, "request")} under way, {plural(sum(to?.scrape, NAMES.connections) ?? 0, "HTTP connection")}, {plural(sum(to?.scrape, NAMES.respConnections) ?? 0, "Redis connection")}, {plural(sum(to?.scrape, NAMES.refusals) ?? 0, "request")} refused as overload
      </p>
    </Panel>
  );
}

function Repair() {
  const { scrapes, cluster, replicas, now } = useLive();
  const to = scrapes.at(-1);
  const from = scrapes[0];
  const scrape = to?.scrape;
  const reads = sum(scrape, `${NAMES.readSiblings}_count`) ?? 0;
  const single = sum(scrape, `${NAMES.readSiblings}_bucket`, { le: "1.0" }) ?? 0;
  const share = reads > 0 ? `${(((reads - single) / reads) * 100).toFixed(1)} %` : NOTHING;
  const repaired = (how: string) => scrape?.get(NAMES.repairs)?.filter((sample) => Object.values(sample.labels).includes(how)).reduce((all, sample) => all + sample.value, 0);
  const { epoch } = cluster!;
  // A healthy cluster turns an epoch in tens of seconds.
  const isHeld = now - Date.parse(epoch.since) > 300_000;
  const rows: [string, string, string][] = [
    ["reads that showed siblings", share, `of ${count(reads)}`],
    ["read repairs", count(repaired("read")), "replicas behind at a read"],
    ["anti-entropy repairs", count(repaired("exchange")), "replicas behind at an exchange"],
    ["heals", count(repaired("heal")), "lost or damaged records"],
    ["exchanges", count(sum(scrape, NAMES.exchanges)), from && to && from !== to ? `${perSecond(rate(from, to, NAMES.exchanges))} per s` : ""],
    ["hints delivered", count(sum(scrape, NAMES.hintsDelivered)), `${count(cluster!.hints.records)} held, ${bytes(cluster!.hints.bytes)} of ${bytes(cluster!.hints.bytes_max)}`],
    ["tombstones held", count(sum(scrape, NAMES.tombstones)), `${count(sum(scrape, NAMES.collected))} collected`],
  ];
  return (
    <Panel title="Siblings, repair, deletes" aside={<span class="faint">of {cluster!.node} since it started</span>}>
      <dl class="rows">
        {rows.map(([name, value, more]) => <div key={name}><dt>{name}</dt><dd><b>{value}</b> <small>{more}</small></dd></div>)}
        <div>
          <dt>epoch {count(epoch.epoch)}</dt>
          <dd>
            {epoch.waits_for.length === 0 ? "ends soon" : epoch.waits_for.length <= 2 || isHeld ? <>{isHeld ? "held by" : "waits for"} <b>{epoch.waits_for.join(", ")}</b></> : `under way on ${epoch.waits_for.length} nodes`}
            <small> since {ago(epoch.since, now)}; deletes are collected five epochs later</small>
          </dd>
        </div>
        <div>
          <dt>replicas verified equal</dt>
          <dd>{replicas ? replicas.unproven > 0 ? `${count(replicas.unproven)} of ${count(replicas.replicas.length)} not compared yet` : `as of ${ago(replicas.equal_since, now)}` : NOTHING}</dd>
        </div>
      </dl>
      {!to && <Empty>No metrics yet.</Empty>}
    </Panel>
  );
}
