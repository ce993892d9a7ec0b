// The page: its frame, its tabs, and what it says when its node is lost or asks for a user.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { isSignedIn, Refused, send, signIn, whenUnauthorized } from "./api";
import { BucketsView } from "./buckets";
import { ClusterView } from "./cluster";
import { ago, plural } from "./format";
import { KeysView } from "./keys";
import { changed, goOn, hasDraft, live, refresh, start, useLive } from "./live";
import { MembersView } from "./members";
import { Dialog, Note } from "./parts";
import { go, type Route, route, type Tab, TABS } from "./route";

const NAMES: Record<Tab, string> = { cluster: "Cluster", keys: "Keys", members: "Members", buckets: "Buckets" };

function App() {
  const { cluster, loss, refused, signIn: wanted } = useLive();
  const [at, setAt] = useState<Route>(route);
  useEffect(() => {
    const moved = () => setAt(route());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const name = cluster ? cluster.cluster_name || cluster.node : "";
  useEffect(() => { document.title = `${NAMES[at.tab]} – ${name ? `${name} – ` : ""}Cartwheel`; }, [at.tab, name]);
  // An address may name any node as lost: only a member's name is believed.
  const came = cluster?.members.some((member) => member.name === at.lost) ? at.lost : "";
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
      <Top at={at} />
      <div class="notes">
        {loss && <Lost />}
        {came && !loss && (
          <Note tone="warn" onClose={() => { location.hash = go({ ...at, lost: "" }); }}>
            {came} did not answer any more. This page goes on through {cluster!.node}.
          </Note>
        )}
        {refused && !loss && <Note tone="bad">{refused}</Note>}
      </div>
      <main id="main" tabIndex={-1} class={loss ? "stale" : ""}>
        {at.tab === "cluster" ? <ClusterView /> : at.tab === "keys" ? <KeysView bucket={at.bucket} key_={at.key} /> : at.tab === "members" ? <MembersView /> : <BucketsView />}
      </main>
      {wanted !== null && <SignIn message={wanted} />}
    </>
  );
}

function Top({ at }: { at: Route }) {
  const { cluster, answeredAt, now, loss } = useLive();
  const move = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const links = [...(event.currentTarget as Element).querySelectorAll("a")];
    links[(links.indexOf(document.activeElement as HTMLAnchorElement) + step + links.length) % links.length]?.focus();
  };
  return (
    <header class="top">
      <div class="brand">
        <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true"><circle cx="16" cy="16" r="12" /><path d="M16 4v24M4 16h24M7.5 7.5l17 17M24.5 7.5l-17 17" /></svg>
        <b>{cluster?.cluster_name || "Cartwheel"}</b>
        {cluster && <span class="faint">through {cluster.node}</span>}
      </div>
      <nav aria-label="Views" onKeyDown={move}>
        {TABS.map((tab) => <a key={tab} href={go({ ...at, tab, lost: "", ...(tab === "keys" ? {} : { bucket: "", key: "" }) })} aria-current={tab === at.tab ? "page" : undefined}>{NAMES[tab]}</a>)}
      </nav>
      <div class="tools">
        <span class={`pulse${loss ? " lost" : ""}`} title={answeredAt ? `last answer ${ago(new Date(answeredAt).toISOString(), now)}` : "no answer yet"}>{loss ? "lost" : answeredAt ? "live" : "…"}</span>
        {isSignedIn() && <button type="button" class="plain" onClick={() => { signIn(null); location.reload(); }}>Sign out</button>}
        <Theme />
      </div>
    </header>
  );
}

const THEMES = { auto: "◑", light: "☀", dark: "☾" } as const;
type ThemeName = keyof typeof THEMES;

function storedTheme(): ThemeName {
  const stored = localStorage.getItem("cartwheel.theme");
  return stored === "light" || stored === "dark" ? stored : "auto";
}

function Theme() {
  const [theme, setTheme] = useState<ThemeName>(storedTheme);
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("cartwheel.theme", theme);
  }, [theme]);
  const next = { auto: "light", light: "dark", dark: "auto" } as const;
  return <button type="button" class="plain theme" onClick={() => setTheme(next[theme])} aria-label={`Colours: ${theme}. Change to ${next[theme]}.`} title={`colours: ${theme}`}>{THEMES[theme]}</button>;
}

function Lost() {
  const { loss } = useLive();
  const { node, other, tried } = loss!;
  return (
    <Note tone="bad">
      <b>{node} does not answer.</b>{" "}
      {other
        ? hasDraft()
          ? <>{other.name} does. What you have typed here would be lost: <button type="button" onClick={goOn}>Go on through {other.name}</button></>
          : <>Going on through {other.name}… <button type="button" onClick={goOn}>Now</button></>
        : <>Looking for another node…{tried > 0 && ` ${plural(tried, "attempt")} in vain.`} What you see is what was last known.</>}
    </Note>
  );
}

function SignIn({ message }: { message: string }) {
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const [token, setToken] = useState("");
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    const utf8 = new TextEncoder().encode(`${user}:${password}`);
    signIn(token ? `Bearer ${token.trim()}` : `Basic ${btoa(String.fromCharCode(...utf8))}`);
    try {
      await send("/v1/cluster");
      live.signIn = null;
      refresh();
    } catch (error) {
      // A refusal of the user has its message already.
      if (!(error instanceof Refused && error.status === 401)) live.signIn = (error as Error).message;
    }
    setBusy(false);
    changed();
  };
  return (
    <Dialog title="Sign in">
      <p class="faint" role="status">{message}</p>
      <form class="settings" onSubmit={submit}>
        <label>User <input value={user} onInput={(event) => setUser(event.currentTarget.value)} autocomplete="username" autocapitalize="off" /></label>
        <label>Password <input type="password" value={password} onInput={(event) => setPassword(event.currentTarget.value)} autocomplete="current-password" /></label>
        <label>or a token <input type="password" value={token} onInput={(event) => setToken(event.currentTarget.value)} autocomplete="off" /></label>
        <p class="faint">Kept in this tab until it is closed, for this node alone.</p>
        <div class="buttons"><button type="submit" class="main" disabled={isBusy || (!token && !user)}>Sign in</button></div>
      </form>
    </Dialog>
  );
}

whenUnauthorized((message) => {
  // What was refused is not sent again: each time might count as a failed login.
  live.signIn = isSignedIn() ? `That was not accepted. ${message}` : (live.signIn ?? message);
  signIn(null);
  changed();
});
const root = document.getElementById("app")!;
root.textContent = "";
render(<App />, root);
start();
