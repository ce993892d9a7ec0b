// Colours of nodes and zones: Paul Tol's "bright" and "muted" schemes, which people with any kind of colour vision can tell apart.

const HUES = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#882255", "#44aa99", "#cc6677", "#88ccee", "#bbbbbb"];

/** The colour of the member or zone in this position. After twelve they repeat: names and tables tell these apart. */
export function colour(position: number): string {
  return HUES[position % HUES.length]!;
}

export function zones(members: { zone: string }[]): string[] {
  return [...new Set(members.map((member) => member.zone))].sort();
}
