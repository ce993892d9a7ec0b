// The causality of a key as a picture: the actors, how many of their writes were replaced, and those that stand side by side.

import type { KeyReplicas } from "./api";
import { ago, count, plural } from "./format";

const ROW = 44;
const LEFT = 108;
const STANDS = LEFT + 72;
const JOINS = STANDS + 110;
const WIDTH = JOINS + 52;
/** More actors than these are left to the table. */
const ACTORS_MAX = 8;

/** A version as people tell it from others: its node and its number there; further actors of a node get a mark each. */
export function short(version: string, { clock, versions }: KeyReplicas): string {
  const known = versions.find((other) => other.version === version);
  if (!known) return version;
  const actors = clock.filter((actor) => actor.node === known.node);
  const mark = "′".repeat(Math.max(0, actors.findIndex((actor) => actor.actor === known.actor)));
  return `${known.node}${mark}·${known.counter}`;
}

export function CausalityGraph({ replicas, now }: { replicas: KeyReplicas; now: number }) {
  const { clock, versions, siblings } = replicas;
  const known = (actor: string) => versions.filter((version) => version.actor === actor).sort((a, b) => a.counter - b.counter);
  // Actors whose writes still stand come first.
  const actors = [...clock].sort((a, b) => Number(known(b.actor).length > 0) - Number(known(a.actor).length > 0)).slice(0, ACTORS_MAX);
  let row = 0;
  // Each version has a row: writes that stand side by side must not look like a chain.
  const lanes = actors.map((actor) => {
    const shown = known(actor.actor);
    const first = row;
    row += Math.max(1, shown.length);
    return { ...actor, shown, first, replaced: actor.upto + actor.beyond.length - shown.length };
  });
  const y = (row: number) => ROW * row + 18;
  const height = ROW * row + 4;
  const rows = lanes.flatMap(({ shown, first }) => shown.flatMap((version, at) => (siblings.includes(version.version) ? [first + at] : [])));
  const end = y(rows.reduce((sum, row) => sum + row, 0) / Math.max(1, rows.length));
  const isSplit = siblings.length > 1;
  return (
    <figure class="graph">
      <svg viewBox={`0 0 ${WIDTH} ${height}`} width={WIDTH} role="img" aria-label={words(replicas)}>
        {lanes.map(({ actor, node, shown, first, replaced }) => (
          <g key={actor}>
            <text class="actor" x="0" y={y(first) + 1}>{node}</text>
            <text class="small" x="0" y={y(first) + 14}>{replaced > 0 ? `${count(replaced)} replaced` : "none replaced"}</text>
            {replaced > 0 && shown.length === 0 && <path class="edge ends" d={`M${LEFT} ${y(first)}H${LEFT + 44}`} />}
            {replaced > 0 && <circle class="past" cx={LEFT} cy={y(first)} r="6" />}
            {shown.map((version, at) => {
              const isSibling = siblings.includes(version.version);
              const here = y(first + at);
              return (
                <g key={version.version}>
                  {replaced > 0 && <path class="edge" d={`M${LEFT + 6} ${y(first)}C${LEFT + 40} ${y(first)} ${LEFT + 30} ${here} ${STANDS - 10} ${here}`} />}
                  {isSplit && isSibling && <path class="join" d={`M${STANDS + 11} ${here}C${STANDS + 62} ${here} ${JOINS - 62} ${end} ${JOINS - 12} ${end}`} />}
                  <circle class={`${isSibling ? "sibling" : "past"}${version.deleted ? " tombstone" : ""}`} cx={STANDS} cy={here} r="10"><title>{`${version.version}, ${version.modified}`}</title></circle>
                  <text class="counter" x={STANDS} y={here + 4}>{version.deleted ? "✕" : version.counter}</text>
                  <text class="small middle" x={STANDS} y={here + 23}>{ago(version.modified, now)}</text>
                </g>
              );
            })}
          </g>
        ))}
        {isSplit && (
          <g>
            <circle class="next" cx={JOINS} cy={end} r="11" />
            <text class="counter faint" x={JOINS} y={end + 4}>+</text>
            <text class="small middle" x={JOINS} y={end + 25}>a merge</text>
          </g>
        )}
      </svg>
      <figcaption class="faint">
        {isSplit ? "No write in a filled circle has seen another: they stand side by side until one that has seen all of them replaces them."
          : "A filled circle is what stands; a hollow one was replaced by a write that had seen it."}
        {clock.length > ACTORS_MAX && ` ${plural(clock.length - ACTORS_MAX, "further actor")} not drawn.`}
      </figcaption>
    </figure>
  );
}

/** The picture in words. */
function words({ clock, versions, siblings }: KeyReplicas): string {
  const standing = versions.filter((version) => siblings.includes(version.version));
  const of = standing.map((version) => `${version.deleted ? "a delete" : "a value"} by ${version.node}, its write ${version.counter}`);
  return `${plural(siblings.length, "sibling")}: ${of.join("; ") || "none"}. Written by ${plural(clock.length, "actor")}.`;
}
