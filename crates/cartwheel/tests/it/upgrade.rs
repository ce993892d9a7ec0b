//! A cluster that is upgraded node by node under load, with a step back in between, loses no acknowledged write.
//!
//! The newer build is this one, compiled so that it pretends to speak one more version of the protocol ([`PRETENDS`]), whose frames and
//! records this build cannot read.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cartwheel_client::{Attempt, Client, ClusterStatus, Options, Outcome, Value};
use cartwheel_core::store::record::{Record, RecordError};
use cartwheel_core::wire::{PRETENDS, PROTOCOL_VERSION, Protocol};
use cartwheel_storage::{FjallOptions, FjallStore, Store as _};
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::harness::{CARTWHEEL, Cluster, PATIENCE, members, raw};

const OLD: u32 = PROTOCOL_VERSION;
const NEW: u32 = PROTOCOL_VERSION + 1;

/// The number of sets, of writers for each node, and of members that a writer adds on average before a test takes its next step.
const SETS: usize = 6;
const WRITERS: usize = 2;
const ADDS: usize = 15;

/// The option by which a profile compiles without optimizing.
fn unoptimized(profile: &str) -> String {
    format!("--config={profile}.opt-level=0")
}

/// Compiles the newer build. It is not optimized, because that would take several times as long.
fn newer_build() -> PathBuf {
    if PRETENDS {
        panic!("compile the tests without CARTWHEEL_PRETEND_NEXT: they compile the newer build themselves");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("pretend-next");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let built = Command::new(cargo)
        .args(["build", "--locked", "--package", "cartwheel", "--bin", "cartwheel", "--profile", "dev", "--target-dir"])
        .arg(&target)
        .args(
            ["profile.dev", "profile.dev.package.cartwheel-core", "profile.dev.package.cartwheel-sim"].map(unoptimized),
        )
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARTWHEEL_PRETEND_NEXT", "1")
        .envs([("CARGO_PROFILE_DEV_DEBUG", "0"), ("CARGO_INCREMENTAL", "0")])
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join("debug/cartwheel")
}

/// A writer's request, and when it ended.
struct Ended {
    node: String,
    at: Instant,
    took: Duration,
    outcome: Outcome,
}

/// A running load: each writer knows one node and adds to sets that all writers share.
struct Load {
    stop: Arc<AtomicBool>,
    /// Indexed by the node's number minus one.
    adds: Arc<[AtomicUsize; 3]>,
    attempts: Arc<Mutex<Vec<Ended>>>,
    writers: JoinSet<Vec<(usize, String)>>,
}

fn set(number: usize) -> String {
    format!("set-{number}")
}

fn text(text: String) -> Value {
    Value::new(text, "text/plain")
}

impl Load {
    fn start(cluster: &Cluster) -> Self {
        let mut load =
            Self { stop: Arc::default(), adds: Arc::default(), attempts: Arc::default(), writers: JoinSet::new() };
        for node in 0..3 {
            for writer in 0..WRITERS {
                let attempts = load.attempts.clone();
                let client = cluster.client(node as u16 + 1).on_attempt(move |attempt: &Attempt<'_>| {
                    let (node, outcome) = (attempt.endpoint.to_owned(), attempt.outcome.clone());
                    attempts.lock().unwrap().push(Ended { node, at: Instant::now(), took: attempt.took, outcome });
                });
                let (stop, adds) = (load.stop.clone(), load.adds.clone());
                load.writers.spawn(async move {
                    let mut added = Vec::new();
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let (set, member) = (number % SETS, format!("{node}-{writer}-{number}"));
                        if add(&client, set, &member).await {
                            added.push((set, member));
                            adds[node].fetch_add(1, Ordering::Relaxed);
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    added
                });
            }
        }
        load
    }

    /// Waits until the writers at each of these nodes have added more members.
    async fn go_on(&self, nodes: &[usize]) {
        let count = |node: usize| self.adds[node - 1].load(Ordering::Relaxed);
        let goals: Vec<usize> = nodes.iter().map(|&node| count(node) + WRITERS * ADDS).collect();
        until("the writers add more members", || async {
            nodes.iter().zip(&goals).all(|(&node, &goal)| count(node) >= goal)
        })
        .await;
    }

    async fn end(self) -> (Vec<(usize, String)>, Vec<Ended>) {
        self.stop.store(true, Ordering::Relaxed);
        let added = self.writers.join_all().await.into_iter().flatten().collect();
        let attempts = std::mem::take(&mut *self.attempts.lock().unwrap());
        (added, attempts)
    }
}

/// Adds a member to a set by a read, a merge and a write. Returns whether the write was acknowledged.
async fn add(client: &Client, set_number: usize, member: &str) -> bool {
    let patient = Options { timeout: Some(Duration::from_secs(20)), ..Options::default() };
    let Ok(read) = client.get_with("sets", set(set_number), &patient).await else { return false };
    let merged = [members(&read), vec![member.to_owned()]].concat().join("\n");
    client.put_with("sets", set(set_number), text(merged), read.context.as_ref(), &patient).await.is_ok()
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A cluster whose nodes are stopped and restarted with other builds.
struct Upgraded {
    cluster: Cluster,
    /// The node's address, and the beginning and end of its outage.
    outages: Vec<(String, Instant, Instant)>,
}

impl Upgraded {
    /// Ends a node with `signal` and restarts it with another build.
    fn exchange(&mut self, number: u16, signal: Signal, build: &Path) {
        self.exchange_after(number, signal, build, |_| {});
    }

    fn exchange_after(&mut self, number: u16, signal: Signal, build: &Path, look: impl FnOnce(&Cluster)) {
        self.sent_no_nonsense();
        let begun = Instant::now();
        self.cluster.stop(number, signal);
        look(&self.cluster);
        self.cluster.restart_with(number, build);
        self.outages.push((self.cluster.endpoint(number), begun, Instant::now()));
    }

    /// Checks that no node has received a message that it cannot read.
    fn sent_no_nonsense(&self) {
        for endpoint in self.cluster.endpoints() {
            let metrics = raw::get(&endpoint, "/metrics").text();
            let counts = metrics.lines().filter(|line| line.starts_with("cartwheel_peer_protocol_errors_total"));
            let counts: Vec<&str> = counts.collect();
            assert!(counts.len() == 3 && counts.iter().all(|line| line.ends_with(" 0")), "{endpoint}: {counts:?}");
        }
    }

    async fn status(&self, number: u16) -> Option<ClusterStatus> {
        self.cluster.client(number).cluster().await.ok()
    }

    /// Waits until each node speaks up to `newest[node]`, all others know it, and each pair uses the newest version that both speak.
    async fn speak(&self, newest: [u32; 3]) {
        for number in 1..=3 {
            until(&format!("node-{number} talks with nodes that speak {newest:?}"), || async {
                let Some(status) = self.status(number).await else { return false };
                let ours = newest[usize::from(number) - 1];
                let mut others = status.members.iter().filter(|other| other.member.name != status.node);
                status.protocol.newest == ours
                    && others.all(|other| {
                        let theirs = newest[other.member.name["node-".len()..].parse::<usize>().unwrap() - 1];
                        let spoken = other.protocol;
                        spoken.is_some_and(|spoken| spoken.newest == theirs && spoken.used == Some(ours.min(theirs)))
                    })
            })
            .await;
        }
    }

    /// Waits until each node uses `version`.
    async fn use_version(&self, version: u32) {
        for number in 1..=3 {
            until(&format!("node-{number} uses version {version}"), || async {
                self.status(number).await.is_some_and(|status| status.protocol.in_use == version)
            })
            .await;
        }
    }

    /// Checks that each node can write to all replicas and read the value from all of them.
    async fn all_hear_each_other(&self, when: &str) {
        let all = Options { replicas: Some(3), timeout: Some(Duration::from_secs(20)), ..Options::default() };
        for number in 1..=3 {
            let (client, key) = (self.cluster.client(number), format!("{when}-{number}"));
            let written = client.put_with("heard", &key, text(key.clone()), None, &all).await.unwrap();
            assert_eq!(written.acks.home, 3);
            assert_eq!(members(&client.get_with("heard", &key, &all).await.unwrap()), [key]);
        }
    }
}

/// A node's stored records by the version of their format, which is their first byte, and the result of decoding each with this build.
fn stored(cluster: &Cluster, number: u16) -> BTreeMap<u8, Vec<Result<(), RecordError>>> {
    let mut stored: BTreeMap<u8, Vec<Result<(), RecordError>>> = BTreeMap::new();
    for shard in 0..2 {
        let dir = cluster.node_dir(number).join(format!("shard-{shard}"));
        let store = FjallStore::open(&dir, FjallOptions::default()).unwrap();
        for entry in store.scan(&[], None) {
            let (storage_key, record) = entry.unwrap();
            stored.entry(record[0]).or_default().push(Record::decode(&record, &storage_key).map(|_| ()));
        }
    }
    stored
}

fn run(build: &Path, args: &[&str]) -> Output {
    Command::new(build).args(args).output().unwrap()
}

/// A process that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that a node of the older build cannot join the newer cluster through node-2, and that both log that its build is too old.
async fn is_too_old_to_join(upgraded: &Upgraded, old: &Path) {
    let status = upgraded.status(2).await.unwrap();
    let seed = status.members.iter().find(|member| member.member.name == "node-2").unwrap().member.peers.clone();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut serve = Command::new(old);
    serve.args(["serve", "--name", "node-4", "--seed", &seed, "--join", "--dir"]).arg(dir.path().join("node-4"));
    let _joins = Killed(serve.stderr(File::create(&log).unwrap()).spawn().unwrap());
    let olds = match Protocol::OLDEST {
        oldest if oldest == Protocol::NEWEST => format!("version {OLD}"),
        oldest => format!("versions {oldest} to {OLD}"),
    };
    let here = format!("node-2 speaks protocol version {NEW} and this node {olds}: the build of this node is too old");
    let there = format!("node-4 speaks protocol {olds} and this node version {NEW}: its build is too old");
    for (log, told) in [(log, here), (upgraded.cluster.log_of_restarted(2), there)] {
        until(&told, || async { std::fs::read_to_string(&log).unwrap().contains(&told) }).await;
    }
}

/// Starts a node that must refuse to start, and returns its standard error.
fn refused(build: &Path, dir: &Path) -> String {
    let mut serve = Command::new(build);
    let mut serve = serve.args(["serve", "--dir"]).arg(dir).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while serve.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = serve.kill();
    let output = serve.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "the node serves");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that all added members can be read through every node.
async fn nothing_is_lost(cluster: &Cluster, added: &[(usize, String)]) {
    for number in 1..=3 {
        let client = cluster.client(number);
        for at in 0..SETS {
            let there = members(&client.get("sets", set(at)).await.unwrap());
            let missing = added.iter().filter(|(set, member)| *set == at && there.binary_search(member).is_err());
            let missing: Vec<_> = missing.collect();
            assert!(missing.is_empty(), "node-{number} does not have {missing:?} of {}", set(at));
        }
    }
}

/// Checks that no request to a running node failed.
fn none_was_refused(attempts: &[Ended], outages: &[(String, Instant, Instant)]) {
    let is_out = |ended: &Ended| {
        let is_in = |(node, from, to): &(String, Instant, Instant)| {
            *node == ended.node
                && ended.at >= *from
                && ended.at.checked_sub(ended.took).is_none_or(|begun| begun <= *to)
        };
        outages.iter().any(is_in)
    };
    let is_good = |ended: &Ended| matches!(ended.outcome, Outcome::Answered { status: 200 | 204 | 300 | 404, .. });
    let refused = attempts.iter().filter(|ended| !is_good(ended) && !is_out(ended));
    let refused: Vec<_> = refused.map(|ended| (&ended.node, &ended.outcome, ended.took)).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(
        attempts.iter().any(|ended| !is_good(ended)),
        "no request failed during the outages, so the load did not notice them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_node_by_node_and_loses_nothing() {
    let new = tokio::task::spawn_blocking(newer_build).await.unwrap();
    let old = Path::new(CARTWHEEL);
    let mut upgraded = Upgraded { cluster: Cluster::start(), outages: Vec::new() };
    let load = Load::start(&upgraded.cluster);
    load.go_on(&[1, 2, 3]).await;
    upgraded.speak([OLD, OLD, OLD]).await;

    // One node is newer and speaks the version of the others.
    upgraded.exchange(1, Signal::TERM, &new);
    upgraded.speak([NEW, OLD, OLD]).await;
    upgraded.all_hear_each_other("first").await;
    load.go_on(&[1, 2, 3]).await;
    let protocol = upgraded.status(1).await.unwrap().protocol;
    assert_eq!((protocol.in_use, protocol.waits_for), (OLD, vec!["node-2".to_owned(), "node-3".to_owned()]));
    let told = run(old, &["cluster", "status", "-o", "wide", "--node", &upgraded.cluster.endpoint(1)]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let waits = format!("protocol version {OLD}; version {NEW} waits for node-2, node-3");
    assert!(told.contains(&waits) && told.contains(&format!("{OLD}-{NEW}")), "{told}");

    // The node has stored no record that the older build cannot read, and is downgraded.
    upgraded.exchange_after(1, Signal::KILL, old, |cluster| {
        let stored = stored(cluster, 1);
        assert!(stored.len() == 1 && stored.values().flatten().all(Result::is_ok), "{stored:?}");
    });
    upgraded.speak([OLD, OLD, OLD]).await;
    load.go_on(&[1, 2, 3]).await;

    // All nodes are upgraded, one after the other.
    upgraded.exchange(1, Signal::KILL, &new);
    load.go_on(&[1, 2, 3]).await;
    upgraded.exchange(2, Signal::TERM, &new);
    upgraded.speak([NEW, NEW, OLD]).await;
    upgraded.all_hear_each_other("second").await;
    load.go_on(&[1, 2, 3]).await;
    upgraded.use_version(OLD).await;
    upgraded.exchange(3, Signal::KILL, &new);
    upgraded.speak([NEW, NEW, NEW]).await;
    upgraded.use_version(NEW).await;
    upgraded.all_hear_each_other("third").await;
    load.go_on(&[1, 2, 3]).await;
    // The version in use stays while a node is down and after it restarts.
    upgraded.exchange(2, Signal::KILL, &new);
    upgraded.use_version(NEW).await;
    load.go_on(&[1, 2, 3]).await;

    is_too_old_to_join(&upgraded, old).await;

    let (added, attempts) = load.end().await;
    upgraded.sent_no_nonsense();
    nothing_is_lost(&upgraded.cluster, &added).await;
    none_was_refused(&attempts, &upgraded.outages);
    let nodes = upgraded.cluster.endpoints().into_iter().flat_map(|node| ["--node".to_owned(), node]);
    let verify: Vec<String> = ["verify".to_owned()].into_iter().chain(nodes).collect();
    let verify: Vec<&str> = verify.iter().map(String::as_str).collect();
    until("all replicas become equal", || async {
        let output = run(old, &verify);
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("EQUAL: ")
    })
    .await;

    // A downgrade is not possible any more: the older build refuses to start.
    upgraded.cluster.stop(1, Signal::TERM);
    let error = refused(old, &upgraded.cluster.node_dir(1));
    assert!(error.contains("start a newer cartwheel"), "{error}");
    let stored = stored(&upgraded.cluster, 1);
    let (&newest, newer) = stored.last_key_value().unwrap();
    assert!(stored.len() == 2 && newer.iter().all(|read| *read == Err(RecordError::Version(newest))), "{stored:?}");
    upgraded.cluster.restart_with(1, &new);
    upgraded.speak([NEW, NEW, NEW]).await;
    nothing_is_lost(&upgraded.cluster, &added).await;
}
