//! Transcripts: small scripted scenarios as text that can be read and reviewed. Commands run on a small cluster without random faults, and the text
//! shows the responses.
//!
//! A transcript is a text of blocks, as in data-driven tests: command lines, a line `----`, and the output up to an empty line. Lines that begin
//! with `#` are comments.
//!
//! | command | effect |
//! | --- | --- |
//! | `cluster n1[:ZONE] n2 n3 [n=3] [r=2] [w=2] [lww] [strict]` | makes a new cluster of these nodes, with one bucket |
//! | `put NODE KEY VALUE [after NAME] [as NAME] [strong] [w=N]` | writes with the context NAME, and names the context of the reply |
//! | `delete NODE KEY [after NAME] [as NAME] [strong] [w=N]` | deletes likewise |
//! | `get NODE KEY [after NAME] [as NAME] [strong] [r=N]` | reads; the response must cover the context NAME |
//! | `cut n1 n2 \| n3` | cuts all links between the two sides |
//! | `heal` | heals all links |
//! | `crash NODE`, `start NODE` | stops a node, and starts it again with its disk |
//! | `stored KEY` | shows what each home holds, and the hints of stand-ins |

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::{Conflict, Durability};
use cartwheel_core::config::{Limits, Timing};
use cartwheel_core::message::client::{Consistency, Get, Got, Operation, Put, Reply, Request};
use cartwheel_core::mutation::Broken;
use cartwheel_core::value::dot::{Actor, NodeId};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Content, Sibling};

use crate::cluster::{BucketSpec, Cluster, ClusterSpec, NodeSpec, key};
use crate::options::{DiskOptions, NetworkOptions};
use crate::show::{self, Naming};
use crate::trace::Trace;
use crate::world::{World, WorldEvent};

const BUCKET: &str = "story";
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long the cluster is left alone after each command, to finish its background work.
const SETTLE_US: u64 = 3_000_000;

/// Runs the commands of a transcript and returns it with the present outputs.
///
/// # Errors
/// The first command that makes no sense, and why.
pub fn replay(text: &str) -> Result<String, String> {
    let mut output = String::new();
    let mut session = None;
    let mut commands: Vec<&str> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        output.push_str(line);
        output.push('\n');
        if line != "----" {
            commands.push(line);
            continue;
        }
        for command in commands.drain(..).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let result = run_command(&mut session, command).map_err(|why| format!("{command}: {why}"))?;
            output.push_str(&result);
        }
        // The old output ends at the next empty line.
        if lines.by_ref().any(str::is_empty) {
            output.push('\n');
        }
    }
    Ok(output)
}

/// Runs one command and returns its output.
fn run_command(session: &mut Option<Session>, command: &str) -> Result<String, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let (&verb, arguments) = words.split_first().ok_or("no command")?;
    if verb == "cluster" {
        *session = Some(Session::new(arguments)?);
        return Ok(String::new());
    }
    let session = session.as_mut().ok_or("there is no cluster yet")?;
    let output = match (verb, arguments) {
        ("get", [node, key, how @ ..]) => session.get(node, key, &RequestOptions::parse(how)?)?,
        ("put", [node, key, value, how @ ..]) => session.put(node, key, Some(value), &RequestOptions::parse(how)?)?,
        ("delete", [node, key, how @ ..]) => session.put(node, key, None, &RequestOptions::parse(how)?)?,
        ("stored", [key]) => session.stored(key),
        ("cut", sides) => session.cut(sides)?,
        ("heal", []) => {
            session.world.heal_links();
            String::new()
        }
        ("crash", [node]) => {
            let node = session.node(node)?;
            session.world.crash(node, 0);
            String::new()
        }
        ("start", [node]) => {
            let node = session.node(node)?;
            session.world.start(node);
            String::new()
        }
        _ => return Err("unknown command".to_owned()),
    };
    session.settle();
    Ok(output)
}

/// The options of a request.
#[derive(Default)]
struct RequestOptions<'a> {
    after: Option<&'a str>,
    name: Option<&'a str>,
    strong: bool,
    quorum: Option<u8>,
}

impl<'a> RequestOptions<'a> {
    fn parse(mut words: &[&'a str]) -> Result<Self, String> {
        let mut how = Self::default();
        while let Some((&word, rest)) = words.split_first() {
            words = rest;
            match (word, rest.first()) {
                ("strong", _) => how.strong = true,
                ("after", Some(&name)) => (how.after, words) = (Some(name), &rest[1..]),
                ("as", Some(&name)) => (how.name, words) = (Some(name), &rest[1..]),
                _ => how.quorum = Some(number(word, "r").or_else(|_| number(word, "w"))?),
            }
        }
        Ok(how)
    }

    const fn consistency(&self) -> Consistency {
        if self.strong { Consistency::Strong } else { Consistency::Eventual }
    }
}

/// The number in `name=number`.
fn number(word: &str, name: &str) -> Result<u8, String> {
    let digits = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("{word} is not understood"))
}

/// A cluster, and the contexts that its clients hold, by name.
struct Session {
    world: World,
    contexts: BTreeMap<String, Bytes>,
}

impl Session {
    fn new(words: &[&str]) -> Result<Self, String> {
        let mut bucket = BucketSpec {
            name: BUCKET.to_owned(),
            n: 3,
            r: 2,
            w: 2,
            conflict: Conflict::Siblings,
            durability: Durability::Fsync,
            sloppy: true,
            strong_only: false,
        };
        let mut nodes = Vec::new();
        for &word in words {
            match word.split_once('=') {
                None if word == "lww" => bucket.conflict = Conflict::Lww,
                None if word == "strict" => bucket.sloppy = false,
                None => {
                    let (name, zone) = word.split_once(':').unwrap_or((word, "z"));
                    nodes.push(NodeSpec { name: name.to_owned(), zone: zone.to_owned(), host: name.to_owned() });
                }
                Some(("n", _)) => bucket.n = number(word, "n")?,
                Some(("r", _)) => bucket.r = number(word, "r")?,
                Some(_) => bucket.w = number(word, "w")?,
            }
        }
        if nodes.is_empty() {
            return Err("a cluster has nodes".to_owned());
        }
        let partitions = nodes.len() as u32;
        // Transcripts show the effects of requests only, so there is no anti-entropy.
        let (limits, timing) = (Limits::default(), Timing { exchange_every: None, ..Timing::default() });
        let spec = ClusterSpec {
            nodes,
            spares: 0,
            outlives_founder: false,
            partitions,
            buckets: vec![bucket],
            limits,
            timing,
        };
        let network = NetworkOptions { delay_min_us: 1_000, ..NetworkOptions::default() };
        let disks = DiskOptions { delay_min_us: 100, ..DiskOptions::default() };
        let world = World::new(Cluster::new(spec, Broken::default()), network, &disks, 0, Trace::default(), None);
        let mut session = Self { world, contexts: BTreeMap::new() };
        session.settle();
        Ok(session)
    }

    fn node(&self, name: &str) -> Result<usize, String> {
        let cluster = self.world.cluster();
        (0..cluster.len()).find(|&index| cluster.name(index) == name).ok_or_else(|| format!("there is no node {name}"))
    }

    fn context(&self, how: &RequestOptions<'_>) -> Result<Option<Bytes>, String> {
        let named = |name: &str| self.contexts.get(name).cloned().ok_or_else(|| format!("there is no context {name}"));
        how.after.map(named).transpose()
    }

    /// Lets the cluster finish its background work.
    fn settle(&mut self) {
        self.world.alarm(SETTLE_US, 0);
        while let Some(event) = self.world.advance() {
            if matches!(event, WorldEvent::Alarm(_)) {
                return;
            }
        }
    }

    fn submit(&mut self, node: &str, operation: Operation) -> Result<Result<Reply, String>, String> {
        let node = self.node(node)?;
        let Some(request) = self.world.submit(node, "client", Request { operation, timeout: TIMEOUT }) else {
            return Ok(Err("connection refused".to_owned()));
        };
        loop {
            match self.world.advance() {
                Some(WorldEvent::Replied(id, outcome)) if id == request => {
                    return Ok(outcome.map_err(|refusal| show::refused(&refusal)));
                }
                Some(WorldEvent::Broken(id)) if id == request => return Ok(Err("connection lost".to_owned())),
                Some(_) => {}
                None => return Err("there are no more events".to_owned()),
            }
        }
    }

    fn get(&mut self, node: &str, name: &str, how: &RequestOptions<'_>) -> Result<String, String> {
        let key = key(BUCKET, name);
        let seen = self.context(how)?;
        let get = Get { key: key.clone(), consistency: how.consistency(), r: how.quorum, seen, wants_context: true };
        Ok(match self.submit(node, Operation::Get(get))? {
            Ok(Reply::Got(got)) => self.show_got(&key, how, &got),
            Ok(_) => return Err("a get has the reply of another request".to_owned()),
            Err(why) => format!("{why}\n"),
        })
    }

    fn put(&mut self, node: &str, name: &str, value: Option<&str>, how: &RequestOptions<'_>) -> Result<String, String> {
        let key = key(BUCKET, name);
        let content = value.map_or(Content::Tombstone, |value| Content::typed(value.to_owned(), "text/plain"));
        let (context, consistency, w) = (self.context(how)?, how.consistency(), how.quorum);
        let put = Put { context, consistency, w, ..Put::blind(key.clone(), content) };
        Ok(match self.submit(node, Operation::Put(put))? {
            Ok(Reply::Put(done)) => {
                let clock = self.remember(&key, how, done.context);
                let standins = match done.acks.standin {
                    0 => String::new(),
                    count => format!(" and {count} stand-ins"),
                };
                format!("stored on {} homes{standins}, context {clock}\n", done.acks.home)
            }
            Ok(_) => return Err("a put has the reply of another request".to_owned()),
            Err(why) => format!("{why}\n"),
        })
    }

    fn show_got(&mut self, key: &Key, how: &RequestOptions<'_>, got: &Got) -> String {
        let values = side_by_side(&got.siblings);
        let clock = self.remember(key, how, got.context.clone());
        format!("{values}, context {clock}\n")
    }

    /// Keeps a reply's context under its name, and returns its clock as text.
    fn remember(&mut self, key: &Key, how: &RequestOptions<'_>, sealed: Option<Bytes>) -> String {
        let Some(sealed) = sealed else { return "none".to_owned() };
        let clock = match self.world.cluster().sealer().open(&sealed, key) {
            Ok(context) => show::clock(&self.actors(key), &context.seen.clock),
            Err(error) => error.to_string(),
        };
        if let Some(name) = how.name {
            self.contexts.insert(name.to_owned(), sealed);
        }
        clock
    }

    fn stored(&self, name: &str) -> String {
        let key = key(BUCKET, name);
        let (cluster, actors) = (self.world.cluster(), self.actors(&key));
        let mut homes: Vec<usize> = self.world.homes(&key);
        homes.sort_unstable();
        let mut text = String::new();
        for &home in &homes {
            let held = match self.world.record(home, &key) {
                None => "nothing".to_owned(),
                Some(Err(error)) => error.to_string(),
                Some(Ok(record)) => {
                    let values: Vec<String> =
                        record.state.siblings().map(|held| show::content(&held.content)).collect();
                    format!("{} {}", show::clock(&actors, record.state.clock()), values.join(" | "))
                }
            };
            text.push_str(&format!("{}: {held}\n", cluster.name(home)));
        }
        for node in (0..cluster.len()).filter(|node| !homes.contains(node)) {
            if let Some(Ok(record)) = self.world.record(node, &key) {
                let owed: Vec<&str> = record.header.owed.keys().map(|&home| cluster.name_of(home)).collect();
                let values = side_by_side(record.state.siblings());
                let clock = show::clock(&actors, record.state.clock());
                text.push_str(&format!("{}, for {}: {clock} {values}\n", cluster.name(node), owed.join(" and ")));
            }
        }
        text
    }

    /// Cuts both directions between the nodes on the left and on the right of the bar.
    fn cut(&mut self, words: &[&str]) -> Result<String, String> {
        let sides: Vec<&[&str]> = words.split(|&word| word == "|").collect();
        let [left, right] = sides[..] else { return Err("name two sides".to_owned()) };
        for one in left {
            for other in right {
                let (one, other) = (self.node(one)?, self.node(other)?);
                self.world.cut(one, other);
                self.world.cut(other, one);
            }
        }
        Ok(String::new())
    }

    /// The actors that the homes know, so that each can be shown under its node's name.
    fn actors(&self, key: &Key) -> Actors<'_> {
        let cluster = self.world.cluster();
        let mut known: BTreeMap<NodeId, Vec<Actor>> = BTreeMap::new();
        for record in self.world.homes(key).into_iter().filter_map(|home| self.world.record(home, key)?.ok()) {
            for run in record.state.clock().runs() {
                let actors = known.entry(run.actor.node).or_default();
                if !actors.contains(&run.actor) {
                    actors.push(run.actor);
                    actors.sort_unstable();
                }
            }
        }
        Actors { cluster, known }
    }
}

/// The values of siblings, in an order that does not depend on the nodes' ids.
fn side_by_side<'a>(siblings: impl IntoIterator<Item = &'a Sibling>) -> String {
    let mut values: Vec<String> = siblings.into_iter().map(|sibling| show::content(&sibling.content)).collect();
    values.sort_unstable();
    if values.is_empty() { "nothing".to_owned() } else { values.join(" | ") }
}

/// Shows a node's first actor of a key under the node's name, as the paper does, and later ones as `n1'`, `n1''`.
struct Actors<'a> {
    cluster: &'a Cluster,
    known: BTreeMap<NodeId, Vec<Actor>>,
}

impl Naming for Actors<'_> {
    fn actor(&self, actor: Actor) -> String {
        let earlier = self.known.get(&actor.node).and_then(|actors| actors.iter().position(|known| *known == actor));
        format!("{}{}", self.cluster.name_of(actor.node), "'".repeat(earlier.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_replaced_and_all_other_lines_are_kept() {
        let story = "# A note.\ncluster n1\nput n1 k v\n----\nwrong\n\nget n1 k\n----\n";
        let output = replay(story).expect("the transcript is valid");
        assert_eq!(
            output,
            "# A note.\ncluster n1\nput n1 k v\n----\nunavailable: too few replicas stored it in time; the write may yet \
             appear: 1 of 2 replicas answered\n\nget n1 k\n----\nunavailable: too few replicas can be reached: 1 of 2 \
             replicas answered\n"
        );
        assert_eq!(replay(&output).as_deref(), Ok(output.as_str()));
    }

    #[test]
    fn errors_name_the_command() {
        assert_eq!(replay("get n1 k\n----\n"), Err("get n1 k: there is no cluster yet".to_owned()));
        assert_eq!(replay("cluster n1\nfly n1\n----\n"), Err("fly n1: unknown command".to_owned()));
        assert_eq!(replay("cluster n1\nget n2 k\n----\n"), Err("get n2 k: there is no node n2".to_owned()));
        assert_eq!(replay("cluster n1\nget n1 k q=1\n----\n"), Err("get n1 k q=1: q=1 is not understood".to_owned()));
    }
}
