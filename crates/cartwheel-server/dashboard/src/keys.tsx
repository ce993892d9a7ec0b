// The key inspector: what each replica holds, the siblings, and their merge.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { json, type KeyReplicas, keyPath, type Read, Refused, send, type Sibling } from "./api";
import { asText, ago, bytes, decoded, fromBase64, isText, plural, shown } from "./format";
import { CausalityGraph, short } from "./graph";
import { keepDraft, live as state, useLive } from "./live";
import { Choice, Dialog, Empty, Loading, Note, Panel, Status } from "./parts";
import { type By, Legend, RingPicture } from "./ring";
import { go } from "./route";
import { useLocation } from "./cluster";

/** Larger values are not fetched into the page. */
const FETCHED_MAX = 4_000_000;
const DRAFT = "merge";

export function KeysView({ bucket, key_: key }: { bucket: string; key_: string }) {
  const { buckets } = useLive();
  const [typed, setTyped] = useState({ bucket, key });
  useEffect(() => setTyped({ bucket, key }), [bucket, key]);
  const open = (event: Event) => {
    event.preventDefault();
    location.hash = go({ tab: "keys", bucket: typed.bucket, key: typed.key });
  };
  return (
    <>
      <form class="address" onSubmit={open}>
        <label>Bucket <input value={typed.bucket} list="buckets" onInput={(event) => setTyped({ ...typed, bucket: event.currentTarget.value })} autocomplete="off" autocapitalize="off" spellcheck={false} /></label>
        <datalist id="buckets">{buckets?.buckets.map(({ bucket }) => <option key={bucket} value={decoded(bucket)} />)}</datalist>
        <label class="wide">Key <input value={typed.key} onInput={(event) => setTyped({ ...typed, key: event.currentTarget.value })} autocomplete="off" autocapitalize="off" spellcheck={false} /></label>
        <button type="submit" class="main" disabled={!typed.bucket}>{typed.key || !typed.bucket ? "Inspect" : "List keys"}</button>
      </form>
      {bucket && key
        ? <Inspector key={`${bucket}/${key}`} bucket={bucket} name={key} />
        : bucket ? <Listing key={bucket} bucket={bucket} /> : <Empty>Give a bucket and a key to see what each replica holds, or a bucket alone to list its keys.</Empty>}
    </>
  );
}

function Listing({ bucket }: { bucket: string }) {
  const [keys, setKeys] = useState<string[] | null>(null);
  const [cursor, setCursor] = useState<string | undefined>();
  const [problem, setProblem] = useState<string | null>(null);
  const more = useCallback(async (from: string | undefined) => {
    try {
      const query = `limit=200${from ? `&cursor=${encodeURIComponent(from)}` : ""}`;
      const page = await json<{ keys: string[]; cursor?: string }>(`/v1/kv/${encodeURIComponent(bucket)}?${query}`, { timeout: 8_000 });
      setKeys((keys) => [...(keys ?? []), ...page.keys]);
      setCursor(page.cursor);
    } catch (error) {
      setProblem((error as Error).message);
    }
  }, [bucket]);
  useEffect(() => void more(undefined), [more]);
  return (
    <Panel title={`Keys of ${bucket}`} aside={<span class="faint">in the order of their tokens</span>}>
      {problem && <Note tone="bad">{problem}</Note>}
      {keys === null ? !problem && <Loading what="keys" /> : keys.length === 0 && cursor === undefined ? <Empty>The bucket holds no keys.</Empty> : (
        <ul class="keys">{keys.map((key) => <li key={key}>{isText(key) ? <a href={go({ tab: "keys", bucket, key: decoded(key) })}>{decoded(key)}</a> : <span class="faint" title="not text: inspect it with another program">{key}</span>}</li>)}</ul>
      )}
      {cursor !== undefined && <button type="button" onClick={() => void more(cursor)}>More keys</button>}
    </Panel>
  );
}

interface Loaded {
  replicas: KeyReplicas;
  read: Read | null;
  /** Why the key could not be read. */
  unread: string | null;
}

/** What the replicas hold, to be compared with what they held. */
function signature({ replicas }: KeyReplicas): string {
  return replicas.map(({ node, state, digest }) => `${node} ${state} ${digest}`).join();
}

function Inspector({ bucket, name }: { bucket: string; name: string }) {
  const { ring, now, loss } = useLive();
  const [by, setBy] = useState<By>("node");
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [done, setDone] = useState<string | null>(null);
  const [isDeleting, setDeleting] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const { located } = useLocation(bucket, name);
  const isHere = useRef(true);
  useEffect(() => () => { isHere.current = false; keepDraft(DRAFT, false); }, []);

  const known = useRef<Loaded | null>(null);
  const load = useCallback(async (isFresh = false) => {
    try {
      const replicas = await json<KeyReplicas>(keyPath("/v1/cluster/replicas", bucket, name) + "?timeout_ms=3000");
      // The values are read again only if a replica holds something else than before.
      const before = known.current;
      const isKnown = !isFresh && before !== null && before.unread === null && signature(before.replicas) === signature(replicas);
      const loaded = { ...(isKnown ? before : await values(replicas)), replicas };
      if (!isHere.current) return;
      known.current = loaded;
      setLoaded(loaded);
      setProblem(null);
    } catch (error) {
      if (isHere.current) setProblem((error as Error).message);
    }
  }, [bucket, name]);
  const values = async (replicas: KeyReplicas): Promise<Omit<Loaded, "replicas">> => {
    if (replicas.versions.reduce((sum, version) => sum + version.bytes, 0) > FETCHED_MAX) return { read: null, unread: null };
    try {
      return { read: await json<Read>(keyPath("/v1/kv", bucket, name) + "?timeout_ms=3000"), unread: null };
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      // An absent key has no value. What replicas hold is shown also where too few of them answer a read.
      return error.status === 404 ? { read: { context: "", siblings: [] }, unread: null } : { read: null, unread: error.message };
    }
  };
  useEffect(() => {
    void load();
    const timer = setInterval(() => !document.hidden && state.signIn === null && void load(), 3_000);
    return () => clearInterval(timer);
  }, [load]);

  const write = async (what: string, method: "PUT" | "DELETE", context: string, body?: BodyInit, more: Record<string, string> = {}) => {
    setBusy(true);
    try {
      const headers = { ...(context ? { "Cartwheel-Context": context } : {}), ...more };
      const response = await send(keyPath("/v1/kv", bucket, name), { method, headers, body, timeout: 8_000 });
      setDone(`${what} (${response.headers.get("Cartwheel-Acks") ?? "no acknowledgements"}).`);
      setProblem(null);
      keepDraft(DRAFT, false);
      await load(true);
      return true;
    } catch (error) {
      setProblem((error as Error).message);
      return false;
    } finally {
      setBusy(false);
    }
  };

  if (!loaded) return problem ? <Note tone="bad">{problem}</Note> : <Loading what="the replicas" />;
  const { replicas, read, unread } = loaded;
  const live = read?.siblings.filter((sibling) => !sibling.deleted) ?? [];
  const homes = replicas.replicas.filter((replica) => replica.role === "home");
  const digests = new Set(homes.filter((replica) => replica.digest !== null).map((replica) => replica.digest));
  const silent = homes.filter((replica) => replica.state === "silent" || replica.state === "failed");
  return (
    <div class="grid inspector">
      {problem && !loss && <Note tone="bad" onClose={() => setProblem(null)}>{problem}</Note>}
      {done && <Note tone="good" onClose={() => setDone(null)}>{done}</Note>}
      <div class="column">
      <Panel title="Replicas" aside={
        silent.length ? <Status tone="bad">{silent.map((replica) => replica.node).join(", ")} {silent.length > 1 ? "do" : "does"} not answer</Status>
          : digests.size > 1 ? <Status tone="warn">homes differ</Status> : <Status tone="good">homes equal</Status>}>
        <ReplicaTable replicas={replicas} now={now} />
        <p class="faint foot">Looking does not repair. The read below does, as any read: homes that are behind get what they lack.</p>
      </Panel>
      <Panel title={live.length > 1 ? `${live.length} siblings` : "Value"} aside={
        read && (live.length > 0) && <button type="button" class="danger" onClick={() => setDeleting(true)} disabled={isBusy}>Delete…</button>}>
        {unread !== null ? <Note tone="bad">{unread}</Note> : read === null ? <Empty>The values take more than {bytes(FETCHED_MAX)}: read them with another program.</Empty> : (
          <>
            {live.length === 0 && <Empty>{replicas.versions.length ? "The key is deleted." : "The key has no value."}</Empty>}
            {read.siblings.map((sibling) => (
              <SiblingCard key={sibling.version} sibling={sibling} name={short(sibling.version, replicas)} now={now} isAmongOthers={live.length > 1} isBusy={isBusy}
                onKeep={() => void write(`Kept ${short(sibling.version, replicas)}; the other siblings are replaced`, "PUT", read.context, fromBase64(sibling.value ?? ""), headersOf(sibling))} />
            ))}
            <Editor read={read} live={live} name={(version) => short(version, replicas)} isBusy={isBusy}
              onWrite={(text, type) => write(live.length > 1 ? "Merged" : "Written", "PUT", read.context, text, { "Content-Type": type })} />
          </>
        )}
      </Panel>
      </div>
      <div class="column">
      <Panel title="Causality" aside={<span class="faint">{plural(replicas.siblings.length, "sibling")}</span>}>
        {replicas.clock.length === 0 ? <Empty>The key was never written, or all trace of it was collected.</Empty> : <CausalityGraph replicas={replicas} now={now} />}
      </Panel>
      <Panel title="Place" aside={<Choice label="Colours" value={by} options={[["node", "by node"], ["zone", "by zone"]]} onChange={setBy} />}>
        {ring && located ? (
          <>
            <div class="ring-box"><RingPicture ring={ring} by={by} located={located} isSmall label={`Partition ${located.partition} on the ring`} />
              <div class="ring-middle" aria-hidden="true"><b>{located.partition}</b><span>partition</span></div></div>
            <Legend members={ring.members} by={by} strong={new Set(homes.map((replica) => replica.node))} />
            <p class="faint foot">Token <code>{replicas.token}</code></p>
          </>
        ) : <Loading what="the ring" />}
      </Panel>
      </div>
      {isDeleting && (
        <Dialog title={`Delete ${bucket}/${name}?`} onClose={() => setDeleting(false)}>
          <p>{plural(live.length, "value")} {live.length === 1 ? "is" : "are"} replaced by a tombstone. What others write meanwhile stays.</p>
          <div class="buttons">
            <button type="button" onClick={() => setDeleting(false)}>Cancel</button>
            <button type="button" class="danger" onClick={() => { setDeleting(false); void write("Deleted", "DELETE", read?.context ?? ""); }}>Delete</button>
          </div>
        </Dialog>
      )}
    </div>
  );
}

/** What a value keeps when it is written again as it is. */
function headersOf(sibling: Sibling): Record<string, string> {
  return {
    "Content-Type": sibling.content_type ?? "application/octet-stream",
    ...(sibling.content_encoding ? { "Content-Encoding": sibling.content_encoding } : {}),
    ...(sibling.ttl ? { "Cartwheel-TTL": String(sibling.ttl) } : {}),
  };
}

function ReplicaTable({ replicas, now }: { replicas: KeyReplicas; now: number }) {
  const { versions } = replicas;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Versions on each replica">
      <table class="replicas">
        <thead>
          <tr>
            <th>replica</th><th>role</th>
            {versions.map((version) => <th key={version.version} class="centre" title={version.version}><code>{short(version.version, replicas)}</code><small>{version.deleted ? "tombstone" : bytes(version.bytes)}</small></th>)}
            <th>state</th>
          </tr>
        </thead>
        <tbody>
          {replicas.replicas.map((replica) => (
            <tr key={replica.node} class={replica.role}>
              <th scope="row">{replica.node}</th>
              <td>{replica.role === "home" ? "home" : "stand-in"}</td>
              {versions.map(({ version }) => {
                const [mark, text] = replica.holds.includes(version) ? ["●", "holds it"]
                  : replica.replaced.includes(version) ? ["◌", "replaced it"]
                    : replica.state === "silent" || replica.state === "failed" ? ["?", "unknown"] : ["–", "has not seen it"];
                return <td key={version} class={`centre mark-${text.split(" ")[0]}`} title={text}><span aria-hidden="true">{mark}</span><span class="sr">{text}</span></td>;
              })}
              <td>
                {replica.recovering ? <Status tone="warn">recovering</Status>
                  : replica.state === "holds" ? <code class="faint" title="digest: equal on equal replicas">{replica.digest?.slice(0, 8)}</code>
                    : replica.state === "nothing" ? <span class="faint">{replica.role === "home" ? "never seen" : "nothing"}</span>
                      : <Status tone={replica.role === "home" ? "bad" : "quiet"}>{replica.problem ?? "no answer"}</Status>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <p class="faint foot key-of-marks"><span>● holds it</span> <span>◌ knows what replaced it</span> <span>– has not seen it</span>{versions.length > 0 && <span>newest {ago(versions.at(-1)!.modified, now)}</span>}</p>
    </div>
  );
}

function SiblingCard({ sibling, name, now, isAmongOthers, isBusy, onKeep }: { sibling: Sibling; name: string; now: number; isAmongOthers: boolean; isBusy: boolean; onKeep: () => void }) {
  const value = sibling.deleted ? null : fromBase64(sibling.value ?? "");
  const { text, isHex, left } = value ? shown(value) : { text: "", isHex: false, left: 0 };
  return (
    <article class="sibling">
      <header>
        <code title={sibling.version}>{name}</code>
        {value ? <><span>{sibling.content_type}</span><span>{bytes(value.length)}</span>{sibling.content_encoding && <span>{sibling.content_encoding}</span>}{sibling.ttl !== undefined && <span>expires in {sibling.ttl} s</span>}</> : <Status tone="quiet">deleted</Status>}
        <time datetime={sibling.modified} title={sibling.modified}>{ago(sibling.modified, now)}</time>
        {isAmongOthers && value && <button type="button" onClick={onKeep} disabled={isBusy}>Keep only this</button>}
      </header>
      {value && (value.length === 0 ? <p class="empty">empty</p> : <pre class={isHex ? "hex" : ""} tabIndex={0} aria-label={isHex ? "value in hexadecimal" : "value"}>{text}</pre>)}
      {left > 0 && <p class="faint">{plural(left, isHex ? "further byte" : "further character")} not shown</p>}
    </article>
  );
}

function Editor({ read, live, name, isBusy, onWrite }: { read: Read; live: Sibling[]; name: (version: string) => string; isBusy: boolean; onWrite: (text: string, type: string) => Promise<boolean> }) {
  const texts = live.map((sibling) => asText(fromBase64(sibling.value ?? "")));
  const type = live[0]?.content_type ?? "text/plain; charset=utf-8";
  const [draft, setDraft] = useState<{ text: string; type: string } | null>(null);
  const edit = (text: string, of = type) => {
    setDraft({ text, type: of });
    keepDraft(DRAFT, true);
  };
  const close = () => {
    setDraft(null);
    keepDraft(DRAFT, false);
  };
  const isText = texts.every((text) => text !== null) && live.every((sibling) => !sibling.content_encoding);
  const union = () => [...new Set(texts.flatMap((text) => (text ?? "").split("\n")))].join("\n");
  if (draft === null) {
    return (
      <div class="buttons left">
        {live.length > 1 && isText && <button type="button" class="main" onClick={() => edit(union())}>Merge…</button>}
        {live.length === 1 && isText && <button type="button" onClick={() => edit(texts[0]!)}>Edit…</button>}
        {live.length === 0 && <button type="button" onClick={() => edit("")}>Write a value…</button>}
        {!isText && <span class="faint">A value that is not plain text is kept whole or replaced.</span>}
        {!isText && <button type="button" onClick={() => edit("", "text/plain; charset=utf-8")}>Replace…</button>}
      </div>
    );
  }
  return (
    <form class="editor" onSubmit={async (event) => { event.preventDefault(); if (await onWrite(draft.text, draft.type)) close(); }}
      onKeyDown={(event) => { if (event.key === "Escape") close(); }}>
      {live.length > 1 && isText && (
        <div class="buttons left" role="group" aria-label="Start from">
          <span class="faint">Start from</span>
          <button type="button" onClick={() => edit(union())}>all lines, each once</button>
          {live.map((sibling, at) => <button type="button" key={sibling.version} onClick={() => edit(texts[at]!)}><code>{name(sibling.version)}</code></button>)}
        </div>
      )}
      <label>{live.length > 1 ? "Merged value" : "Value"}
        <textarea rows={6} value={draft.text} onInput={(event) => edit(event.currentTarget.value, draft.type)} ref={(area) => { if (area && !area.dataset.seen) { area.dataset.seen = "1"; area.focus(); } }} spellcheck={false} />
      </label>
      <label>Content type <input value={draft.type} onInput={(event) => edit(draft.text, event.currentTarget.value)} /></label>
      <p class="faint">{live.length > 0
        ? `The write carries the context of what is shown: it replaces ${live.length > 1 ? `these ${live.length} siblings` : "this value"}, and nothing that was written since.`
        : read.siblings.length ? "The write replaces the tombstone." : "The write has seen nothing: if another wrote meanwhile, both stay as siblings."}</p>
      <div class="buttons">
        <button type="button" onClick={close}>Cancel</button>
        <button type="submit" class="main" disabled={isBusy}>{live.length > 1 ? "Write merged value" : "Write"}</button>
      </div>
    </form>
  );
}
