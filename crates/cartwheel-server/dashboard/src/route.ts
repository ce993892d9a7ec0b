// The view that the page shows, kept in the part of its address that is never sent to a node.

export const TABS = ["cluster", "keys", "members", "buckets"] as const;
export type Tab = (typeof TABS)[number];

export interface Route {
  tab: Tab;
  bucket: string;
  key: string;
  /** The node that was lost before the page went on here. */
  lost: string;
}

export function route(): Route {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parameters = new URLSearchParams(query);
  const tab = TABS.find((known) => known === path) ?? "cluster";
  return { tab, bucket: parameters.get("bucket") ?? "", key: parameters.get("key") ?? "", lost: parameters.get("lost") ?? "" };
}

/** The part of the address for a view. */
export function go(to: Partial<Route> & { tab: Tab }): string {
  const parameters = new URLSearchParams();
  for (const name of ["bucket", "key", "lost"] as const) if (to[name]) parameters.set(name, to[name]);
  const query = parameters.toString();
  return `#/${to.tab}${query && `?${query}`}`;
}
