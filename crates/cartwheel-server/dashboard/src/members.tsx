// Changes of the members: a list of changes, their plan as a picture, and the transfers that follow.

import { useMemo, useState } from "preact/hooks";
import { change, type Member, type MemberChange, type Plan, type Ring, type Transfers } from "./api";
import { verdictOn } from "./cluster";
import { bytes, count, NOTHING, plural } from "./format";
import { keepDraft, refresh, useLive } from "./live";
import { Bar, Empty, Loading, Note, Panel, Status } from "./parts";
import { Legend, RingPicture } from "./ring";

const DRAFT = "plan";

export function MembersView() {
  const { cluster, ring, transfers } = useLive();
  const [changes, setChanges] = useState<MemberChange[]>([]);
  const [plan, setPlan] = useState<Plan | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [done, setDone] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  if (!cluster || !ring) return <Loading what="the members" />;

  const set = (next: MemberChange[]) => {
    setChanges(next);
    setPlan(null);
    setProblem(null);
    keepDraft(DRAFT, next.length > 0);
  };
  const ask = async (isApplied: boolean) => {
    setBusy(true);
    try {
      const body = { changes, apply: isApplied, ...(isApplied && plan ? { planned_on: plan.version } : {}) };
      const answer = await change<Plan>("POST", "/v1/cluster/members", body);
      setProblem(null);
      if (isApplied) {
        set([]);
        setDone(answer.transfers.length ? `Applied: ${plural(answer.transfers.length, "partition")} move in the background.` : "Applied.");
        refresh();
      } else {
        setDone(null);
        setPlan(answer);
      }
    } catch (error) {
      setProblem((error as Error).message);
      if (isApplied) setPlan(null);
    } finally {
      setBusy(false);
    }
  };
  const waiting = transfers?.waiting ?? [];
  return (
    <div class="grid members">
      <div class="column">
      <Panel title="Members">
        <div class="scroll" tabIndex={0} role="region" aria-label="Table of members">
          <table>
            <thead><tr><th>node</th><th>zone</th><th>host</th><th class="number">weight</th><th>status</th><th class="number">partitions</th></tr></thead>
            <tbody>
              {cluster.members.map((member) => {
                const { tone, text } = verdictOn(member);
                return (
                  <tr key={member.id}>
                    <th scope="row">{member.name}</th><td>{member.zone || NOTHING}</td><td>{member.host || NOTHING}</td><td class="number">{member.weight}</td>
                    <td><Status tone={tone}>{text}</Status></td>
                    <td class="number">{ring.homes.filter((homes) => homes.some((at) => ring.members[at]?.name === member.name)).length}</td>
                  </tr>
                );
              })}
              {waiting.map((name) => <tr key={name}><th scope="row">{name}</th><td colSpan={3} class="faint">not a member yet</td><td><Status tone="quiet">waits to join</Status></td><td class="number">0</td></tr>)}
            </tbody>
          </table>
        </div>
        <ChangeForm members={cluster.members} waiting={waiting} onAdd={(added) => set([...changes, added])} />
      </Panel>
      <Moves transfers={transfers} />
      </div>
      <Panel title="Plan" aside={changes.length > 0 && <button type="button" onClick={() => set([])}>Clear</button>}>
        {problem && <Note tone="bad">{problem}</Note>}
        {done && <Note tone="good" onClose={() => setDone(null)}>{done}</Note>}
        {changes.length === 0 ? <Empty>No change is chosen. Several changes together move less data than one after another.</Empty> : (
          <>
            <ol class="changes">
              {changes.map((each, at) => (
                <li key={at}>{described(each)} <button type="button" class="plain" aria-label={`Leave out: ${described(each)}`} onClick={() => set(changes.filter((_, other) => other !== at))}>✕</button></li>
              ))}
            </ol>
            {plan && <PlanPicture plan={plan} ring={ring} />}
            <div class="buttons">
              <button type="button" class={plan ? "" : "main"} disabled={isBusy} onClick={() => void ask(false)}>{plan ? "Plan again" : "Plan"}</button>
              {plan && <button type="button" class="main" disabled={isBusy} onClick={() => void ask(true)}>Apply the plan</button>}
            </div>
          </>
        )}
      </Panel>
    </div>
  );
}

export function described(of: MemberChange): string {
  switch (of.op) {
    case "add": return `Add ${of.node}${of.weight === undefined ? "" : ` with weight ${of.weight}`}`;
    case "remove": return `Remove ${of.node}`;
    case "replace": return `Replace ${of.node} with ${of.with}`;
    case "weight": return `Set the weight of ${of.node} to ${of.weight}`;
    case "zone": return `Put ${of.node} into zone ${of.zone}${of.host ? `, host ${of.host}` : ""}`;
  }
}

const OPERATIONS = [["add", "Add"], ["remove", "Remove"], ["replace", "Replace"], ["weight", "Weight"], ["zone", "Zone"]] as const;

function ChangeForm({ members, waiting, onAdd }: { members: Member[]; waiting: string[]; onAdd: (change: MemberChange) => void }) {
  const [op, setOp] = useState<MemberChange["op"]>("weight");
  const [node, setNode] = useState("");
  const [other, setOther] = useState("");
  const [weight, setWeight] = useState("100");
  const [zone, setZone] = useState("");
  const [host, setHost] = useState("");
  const names = op === "add" ? waiting : members.map((member) => member.name);
  const chosen = names.includes(node) ? node : (names[0] ?? "");
  const with_ = waiting.includes(other) ? other : (waiting[0] ?? "");
  const made = (): MemberChange | null => {
    if (!chosen) return null;
    const number = /^\d{1,6}$/.test(weight) ? Number(weight) : null;
    switch (op) {
      case "add": return number === null ? null : { op, node: chosen, ...(number === 100 ? {} : { weight: number }) };
      case "remove": return { op, node: chosen };
      case "replace": return with_ ? { op, node: chosen, with: with_ } : null;
      case "weight": return number === null ? null : { op, node: chosen, weight: number };
      case "zone": return zone ? { op, node: chosen, zone, ...(host ? { host } : {}) } : null;
    }
  };
  const needsWaiting = (op === "add" || op === "replace") && waiting.length === 0;
  return (
    <form class="change" onSubmit={(event) => { event.preventDefault(); const change = made(); if (change) onAdd(change); }}>
      <label>Change <select value={op} onChange={(event) => setOp(event.currentTarget.value as MemberChange["op"])}>{OPERATIONS.map(([value, text]) => <option key={value} value={value}>{text}</option>)}</select></label>
      <label>Node <select value={chosen} onChange={(event) => setNode(event.currentTarget.value)} disabled={names.length === 0}>{names.map((name) => <option key={name}>{name}</option>)}</select></label>
      {op === "replace" && <label>With <select value={with_} onChange={(event) => setOther(event.currentTarget.value)} disabled={waiting.length === 0}>{waiting.map((name) => <option key={name}>{name}</option>)}</select></label>}
      {(op === "add" || op === "weight") && <label>Weight <input class="narrow" inputMode="numeric" value={weight} onInput={(event) => setWeight(event.currentTarget.value)} /></label>}
      {op === "zone" && <label>Zone <input class="narrow" value={zone} onInput={(event) => setZone(event.currentTarget.value)} /></label>}
      {op === "zone" && <label>Host <input class="narrow" value={host} placeholder="unchanged" onInput={(event) => setHost(event.currentTarget.value)} /></label>}
      <button type="submit" disabled={made() === null}>Add to the plan</button>
      {needsWaiting && <p class="faint">No node waits to join: start one with <code>cartwheel serve --seed HOST:PORT --name NAME</code>.</p>}
    </form>
  );
}

/** The homes before and after the plan, side by side, and what each node holds. */
function PlanPicture({ plan, ring }: { plan: Plan; ring: Ring }) {
  const { members, after, marked } = useMemo(() => {
    const members = [...ring.members];
    const position = (name: string) => {
      let at = members.findIndex((member) => member.name === name);
      if (at < 0) at = members.push({ name, id: name, zone: "", host: "", http: "", resp: "", peers: "" }) - 1;
      return at;
    };
    const after = [...ring.homes];
    for (const { partition, to } of plan.transfers) after[partition] = to.map(position);
    return { members, after, marked: new Set(plan.transfers.map((transfer) => transfer.partition)) };
  }, [plan, ring]);
  const most = Math.max(1, ...plan.nodes.flatMap(({ before, after }) => [before, after]));
  return (
    <div class="plan" role="group" aria-label="Plan">
      <p role="status">
        {plan.transfers.length === 0 ? "Nothing moves." : <><b>{plural(plan.transfers.length, "partition")}</b> change homes, <b>{plural(plan.replicas, "replica")}</b> {plan.replicas === 1 ? "is" : "are"} copied: {plan.estimated ? "about " : ""}{count(plan.keys)} keys, {bytes(plan.bytes)}.</>}
      </p>
      {plan.warnings.map((warning) => <Note tone="warn" key={warning}>{warning}</Note>)}
      {plan.force_recovered.length > 0 && <Note tone="bad">{plural(plan.force_recovered.length, "partition")} would be force-recovered.</Note>}
      <div class="pair">
        <figure><RingPicture ring={ring} members={members} by="node" isSmall label="Homes before" /><figcaption>before</figcaption></figure>
        <figure><RingPicture ring={ring} homes={after} members={members} by="node" isSmall marked={marked} label={`Homes after; ${marked.size} partitions marked`} /><figcaption>after, changes marked</figcaption></figure>
      </div>
      <Legend members={members} by="node" />
      <table class="shares">
        <thead><tr><th>node</th><th class="number">before</th><th class="number">after</th><th>replicas</th></tr></thead>
        <tbody>
          {plan.nodes.map(({ node, before, after }) => (
            <tr key={node}><th scope="row">{node}</th><td class="number">{before}</td><td class="number strong">{after}</td><td class="bars"><Bar part={before / most} /><Bar part={after / most} tone="good" /></td></tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const SHOWN_MOVES = 40;

function Moves({ transfers }: { transfers: Transfers | undefined }) {
  const all = transfers?.transfers ?? [];
  const copied = transfers?.copied_bytes != null && transfers.bytes ? transfers.copied_bytes / transfers.bytes : null;
  return (
    <Panel title="Transfers" aside={all.length > 0 && <span>{plural(all.length, "partition")}{copied !== null && `, ${Math.round(copied * 100)} % copied`}</span>}>
      {!transfers ? <Loading what="transfers" /> : (
        <>
          <p class="sr" role="status">{all.length ? `${all.length} partitions move` : "no partition moves"}</p>
          {all.length === 0 && <Empty>Every partition is where it should be.{transfers.retired_replicas.length > 0 && ` ${plural(transfers.retired_replicas.length, "retired replica")} not purged yet.`}</Empty>}
          {copied !== null && all.length > 0 && <Bar part={copied} tone="good" />}
          {all.length > 0 && (
            <div class="scroll" tabIndex={0} role="region" aria-label="Table of transfers">
              <table>
                <thead><tr><th class="number">partition</th><th>from</th><th>to</th><th>state</th><th class="number">copied</th><th>waits for</th></tr></thead>
                <tbody>
                  {all.slice(0, SHOWN_MOVES).map((move) => (
                    <tr key={move.partition}>
                      <th scope="row" class="number">{move.partition}</th><td>{move.from.join(", ")}</td><td>{move.to.join(", ")}</td><td>{move.state}</td>
                      <td class="number">{bytes(move.copied_bytes)} <small>of {bytes(move.bytes)}</small></td>
                      <td>{move.waits_for.length ? <Status tone="bad">{move.waits_for.join(", ")}</Status> : NOTHING}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          )}
          {all.length > SHOWN_MOVES && <p class="faint foot">{plural(all.length - SHOWN_MOVES, "further partition")}</p>}
        </>
      )}
    </Panel>
  );
}
