// The ring as a picture: one band for each place in the list of homes, coloured by node or by zone.

import { useMemo, useState } from "preact/hooks";
import type { Location, Member, Ring } from "./api";
import { colour, zones } from "./colours";

const SIZE = 400;
const MIDDLE = SIZE / 2;
const OUTER = 184;
const BAND = 22;
const BANDS_MAX = 5;

export type By = "node" | "zone";

const point = (radius: number, turn: number) => {
  const angle = turn * 2 * Math.PI - Math.PI / 2;
  return `${(MIDDLE + radius * Math.cos(angle)).toFixed(2)} ${(MIDDLE + radius * Math.sin(angle)).toFixed(2)}`;
};

/** A piece of a band, between two parts of a turn. */
function piece(outer: number, inner: number, from: number, to: number): string {
  const large = to - from > 0.5 ? 1 : 0;
  if (to - from >= 1) return `${piece(outer, inner, 0, 0.5)}${piece(outer, inner, 0.5, 0.9999)}`;
  return `M${point(outer, from)}A${outer} ${outer} 0 ${large} 1 ${point(outer, to)}L${point(inner, to)}A${inner} ${inner} 0 ${large} 0 ${point(inner, from)}Z`;
}

/** One path for each band and colour, of all their partitions. */
function paths(homes: number[][], colourOf: (member: number) => string, width: number): { key: string; d: string; fill: string }[] {
  const bands = Math.min(BANDS_MAX, Math.max(1, ...homes.map((list) => list.length)));
  const count = homes.length;
  const pieces = new Map<string, string[]>();
  const gap = count <= 512 ? 0.06 / count : 0;
  for (let band = 0; band < bands; band += 1) {
    const outer = OUTER - band * (width + 2);
    for (let first = 0; first < count; ) {
      const member = homes[first]![band];
      let end = first + 1;
      // Without gaps, neighbours of one colour are one piece.
      while (gap === 0 && end < count && homes[end]![band] === member) end += 1;
      if (member !== undefined) {
        const key = `${band} ${colourOf(member)}`;
        const list = pieces.get(key) ?? [];
        list.push(piece(outer, outer - width, first / count + gap, end / count - gap));
        pieces.set(key, list);
      }
      first = end;
    }
  }
  return [...pieces].map(([key, list]) => ({ key, d: list.join(""), fill: key.slice(key.indexOf(" ") + 1) }));
}

interface Props {
  ring: Ring;
  /** The homes, if they differ from the ring's. */
  homes?: number[][];
  members?: Member[];
  by: By;
  /** A key that is looked up. */
  located?: Location | null;
  /** Partitions that move. */
  marked?: Set<number>;
  label: string;
  isSmall?: boolean;
  onPartition?: (partition: number | null) => void;
}

export function RingPicture({ ring, homes = ring.homes, members = ring.members, by, located, marked, label, isSmall, onPartition }: Props) {
  const [picked, setPicked] = useState<number | null>(null);
  const width = isSmall ? 26 : BAND;
  const drawn = useMemo(() => {
    const names = zones(members);
    const colourOf = (member: number) => colour(by === "node" ? member : names.indexOf(members[member]?.zone ?? ""));
    return paths(homes, colourOf, width);
  }, [homes, members, by, width]);
  const count = homes.length;
  const bands = Math.min(BANDS_MAX, Math.max(1, ...homes.map((list) => list.length)));
  const inner = OUTER - bands * (width + 2);
  const pick = (partition: number | null) => {
    if (partition === picked) return;
    setPicked(partition);
    onPartition?.(partition);
  };
  const at = (event: PointerEvent) => {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
    const radius = Math.hypot(x, y) * SIZE;
    const turn = (Math.atan2(y, x) / (2 * Math.PI) + 1.25) % 1;
    pick(radius > inner - 12 && radius < OUTER + 14 ? Math.floor(turn * count) : null);
  };
  const step = (event: KeyboardEvent) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 16, PageDown: -16 }[event.key];
    if (by === undefined && event.key !== "Escape") return;
    event.preventDefault();
    pick(by === undefined ? null : ((picked ?? (by > 0 ? -1 : 0)) + by + count) % count);
  };
  const shown = picked ?? null;
  const turn = located ? Number(BigInt(`0x${located.token}`) >> 96n) / 2 ** 32 : 0;
  const own = located ? (homes[located.partition] ?? []) : [];
  // One partition of many is a hair: its homes are drawn a little wider.
  const wide = located ? Math.max(0, 0.009 - 0.5 / count) : 0;
  const [wideFrom, wideTo] = located ? [located.partition / count - wide, (located.partition + 1) / count + wide] : [0, 0];
  const isHome = new Set(located?.preference_list.filter((replica) => replica.role === "home").map((replica) => replica.node));
  return (
    <svg
      class={`ring${isSmall ? " small" : ""}${located ? " looking" : ""}`}
      viewBox={`0 0 ${SIZE} ${SIZE}`}
      role={onPartition ? "slider" : "img"}
      aria-label={label}
      aria-valuemin={onPartition ? 0 : undefined}
      aria-valuemax={onPartition ? count - 1 : undefined}
      aria-valuenow={onPartition ? (shown ?? 0) : undefined}
      aria-valuetext={onPartition ? (shown === null ? "no partition chosen" : `partition ${shown}: ${names(homes[shown] ?? [], members)}`) : undefined}
      tabIndex={onPartition ? 0 : undefined}
      onPointerMove={onPartition ? at : undefined}
      onPointerLeave={onPartition ? () => pick(null) : undefined}
      onKeyDown={onPartition ? step : undefined}
      onBlur={onPartition ? () => pick(null) : undefined}
    >
      <g class="bands">
        {drawn.map(({ key, d, fill }) => <path key={key} d={d} fill={fill} />)}
      </g>
      {marked !== undefined && [...marked].map((partition) => (
        <path key={partition} class="mark" d={piece(OUTER + 9, OUTER + 3, partition / count, (partition + 1) / count)} />
      ))}
      {shown !== null && <path class="picked" d={piece(OUTER + 4, inner - 2, shown / count, (shown + 1) / count)} />}
      {located && (
        <g class="located">
          {own.slice(0, BANDS_MAX).map((member, band) => {
            const outer = OUTER - band * (width + 2);
            const fill = colour(by === "node" ? member : zones(members).indexOf(members[member]?.zone ?? ""));
            const d = piece(outer, outer - width, wideFrom, wideTo);
            return <path key={band} d={d} fill={fill} data-replica={members[member]?.name} class={isHome.has(members[member]?.name ?? "") ? "replica" : ""} />;
          })}
          <path class="outline" d={piece(OUTER + 4, inner - 2, wideFrom - 0.002, wideTo + 0.002)} />
          <path class="needle" d={`M${point(OUTER + 14, turn)}L${point(inner - 18, turn)}`} />
          <circle class="token" r="4" cx={point(inner - 18, turn).split(" ")[0]} cy={point(inner - 18, turn).split(" ")[1]} />
        </g>
      )}
    </svg>
  );
}

/** The names of members by their positions. */
export function names(positions: number[], members: Member[]): string {
  return positions.map((at) => members[at]?.name ?? "?").join(", ");
}

/** What the colours mean, grouped by zone. */
export function Legend({ members, by, strong }: { members: Member[]; by: By; strong?: Set<string> }) {
  const all = zones(members);
  return (
    <ul class="legend">
      {all.map((zone, at) => (
        <li key={zone}>
          <span class="zone">
            {by === "zone" && <i class="swatch" style={{ background: colour(at) }} />}
            {zone || "no zone"}
          </span>
          {members.map((member, position) => member.zone === zone && (
            <span key={member.id} class={strong && !strong.has(member.name) ? "faint" : ""}>
              {by === "node" && <i class="swatch" style={{ background: colour(position) }} />}
              {member.name}
            </span>
          ))}
        </li>
      ))}
    </ul>
  );
}
