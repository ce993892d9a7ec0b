//! No acknowledged write is lost when one node or all nodes are killed under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, PATIENCE, members};
use cartwheel_client::{Client, Context, Error, Options};
use tokio::task::JoinSet;

/// The number of sets, which all writers add to.
const SETS: usize = 8;
const WRITERS: usize = 6;
/// The number of clients that only read.
const READERS: usize = 2;

/// The writes of one writer that were acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Members of sets, each added by a read, a merge and a write: (set, member).
    merged: Vec<(String, String)>,
    /// Keys written once, without a read.
    blind: Vec<String>,
    /// Keys that were written and then deleted.
    deleted: Vec<String>,
}

/// The number of rounds that all writers together complete before the next step of a test.
const LOAD: usize = 60;

/// One round of a writer. An error means that the outcome of its last write is unknown.
async fn write_once(client: &Client, name: &str, number: usize, told: &mut Acknowledged) -> Result<(), Error> {
    let (set, member) = (format!("set-{}", number % SETS), format!("{name}-{number}"));
    let read = client.get("sets", &set).await?;
    let merged = [members(&read), vec![member.clone()]].concat().join("\n");
    client.put("sets", &set, merged, read.context.as_ref()).await?;
    told.merged.push((set, member.clone()));

    let written = client.put("blind", &member, member.clone(), None).await?;
    if number.is_multiple_of(5) {
        client.delete("blind", &member, written.context.as_ref()).await?;
        told.deleted.push(member);
    } else {
        told.blind.push(member);
    }
    Ok(())
}

/// Writes until it is stopped, whatever fails meanwhile.
async fn write(client: Client, name: String, stop: Arc<AtomicBool>, rounds: Arc<AtomicUsize>) -> Acknowledged {
    let mut told = Acknowledged::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match write_once(&client, &name, number, &mut told).await {
            Ok(()) => drop(rounds.fetch_add(1, Ordering::Relaxed)),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    told
}

/// Reads sets repeatedly. No read may lack a member that an earlier one showed, because each get passes the context of the last.
async fn read(client: Client, stop: Arc<AtomicBool>) {
    let mut seen: Vec<(Option<Context>, Vec<String>)> = vec![(None, Vec::new()); SETS];
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (set, (context, before)) = (number % SETS, &mut seen[number % SETS]);
        let options = Options { seen: context.clone(), ..Options::default() };
        if let Ok(read) = client.get_with("sets", format!("set-{set}"), &options).await {
            let now = members(&read);
            let gone: Vec<_> = before.iter().filter(|member| now.binary_search(member).is_err()).collect();
            assert!(gone.is_empty(), "an earlier read of set-{set} showed {gone:?}, and this one does not");
            (*context, *before) = (read.context, now);
        }
    }
}

/// A running load.
struct Load {
    stop: Arc<AtomicBool>,
    /// The number of rounds that its writers have completed.
    rounds: Arc<AtomicUsize>,
    writers: JoinSet<Acknowledged>,
    readers: JoinSet<()>,
}

impl Load {
    /// Starts the clients. Each begins at a different node and tries the next one when a request fails.
    fn start(cluster: &Cluster, round: usize) -> Self {
        let mut load =
            Self { stop: Arc::default(), rounds: Arc::default(), writers: JoinSet::new(), readers: JoinSet::new() };
        let nodes = cluster.endpoints();
        let client = |by: usize| Client::new((0..3).map(|at| &nodes[(at + by) % 3])).unwrap().without_routing();
        for number in 0..WRITERS {
            let (stop, rounds) = (load.stop.clone(), load.rounds.clone());
            load.writers.spawn(write(client(number), format!("{round}-{number}"), stop, rounds));
        }
        for number in 0..READERS {
            load.readers.spawn(read(client(number), load.stop.clone()));
        }
        load
    }

    /// Waits until its writers have completed [`LOAD`] more rounds.
    async fn goes_on(&self) {
        let (begun, upto) = (Instant::now(), self.rounds.load(Ordering::Relaxed) + LOAD);
        while self.rounds.load(Ordering::Relaxed) < upto {
            assert!(begun.elapsed() < PATIENCE, "{LOAD} rounds of writers take more than {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(mut self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.readers.join_next().await {
            ended.unwrap();
        }
        self.writers.join_all().await
    }
}

/// Checks that every acknowledged write is there, through every node.
async fn nothing_is_lost(cluster: &Cluster, acknowledged: &[Acknowledged]) {
    let (mut merged, mut single) = (0, 0);
    for node in 1..=3 {
        let client = cluster.client(node);
        let mut sets = Vec::new();
        for set in 0..SETS {
            sets.push(members(&client.get("sets", format!("set-{set}")).await.unwrap()));
        }
        for (set, member) in acknowledged.iter().flat_map(|told| &told.merged) {
            let at: usize = set["set-".len()..].parse().unwrap();
            assert!(sets[at].binary_search(member).is_ok(), "{member} is not in {set} at node {node}");
            merged += 1;
        }
    }
    for (at, told) in acknowledged.iter().enumerate() {
        let client = cluster.client(at as u16 % 3 + 1);
        for key in &told.blind {
            assert_eq!(members(&client.get("blind", key).await.unwrap()), std::slice::from_ref(key));
            single += 1;
        }
        for key in &told.deleted {
            assert!(client.get("blind", key).await.unwrap().values.is_empty(), "{key} is back");
            single += 1;
        }
    }
    assert!(merged >= 3 * LOAD && single >= LOAD, "{merged} and {single} writes are too few for a load");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_is_lost_when_one_node_is_killed_and_restarted() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster, 0);
    load.goes_on().await;
    cluster.kill(2);
    load.goes_on().await;
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.restart(2);
        cluster
    })
    .await
    .unwrap();
    load.goes_on().await;
    nothing_is_lost(&cluster, &load.end().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_is_lost_when_all_nodes_are_killed_at_once_and_restarted() {
    let mut cluster = Cluster::start_sharded(4);
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let load = Load::start(&cluster, round);
        load.goes_on().await;
        cluster = tokio::task::spawn_blocking(|| cluster.crash_and_restart()).await.unwrap();
        load.goes_on().await;
        acknowledged.extend(load.end().await);
        nothing_is_lost(&cluster, &acknowledged).await;
    }
}
