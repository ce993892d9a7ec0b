//! Scenarios that once lost acknowledged writes or refused writes, step by step as they were found.

use std::time::Duration;

use cart::purchases::Purchase;
use cartwheel_client::{BucketChange, MemberChange, Options, Value};

use crate::FaultsError;
use crate::change::Change;
use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::node::Membership;
use crate::proof;
use crate::scenario::Pace;
use crate::scenario_run::{ScenarioRun, start_joiners};

/// The number of keys written besides the traffic.
const KEYS: usize = 40;
/// The number of keys among which those with suitable homes are searched.
const CANDIDATES: usize = 300;
/// A node whose clock is further off refuses writes. A put that begins this long after another one has ended must win.
const CLOCK_BOUND: Duration = Duration::from_secs(10);
/// The number of kills in a crash loop, and the time between them.
const CRASHES: usize = 3;
const RUNS_FOR: Duration = Duration::from_secs(1);
/// More than all other weights together.
const HEAVY: u32 = 60_000;
/// How long stand-ins may take to hand over their hints before their records are checked.
const HANDOFF_WITHIN: Duration = Duration::from_secs(5);

const DEBTS: &str = "debts";
const REGISTERS: &str = "registers";
const COPIED: &str = "copied";

/// Grows a cluster of one node by all joiners but the last.
pub(crate) async fn grow_from_one(cluster: &mut Cluster, ledger: &Ledger, pace: Pace) -> Result<(), FaultsError> {
    let mut joiners = cluster.nodes_that_are(Membership::Outside);
    joiners.pop();
    start_joiners(cluster, &joiners).await?;
    let name = |&node: &usize| cluster.nodes()[node].name.clone();
    let changes: Vec<MemberChange> =
        joiners.iter().map(|node| MemberChange::Add { node: name(node), weight: None }).collect();
    let change = Change::make(cluster, ledger, &changes).await?;
    for &node in &joiners {
        cluster.ready(node).await?;
        cluster.set_membership(node, Membership::Member);
    }
    change.settle(cluster, ledger, pace.change).await?;
    Ok(())
}

fn adds(keys: &[String], item: &str) -> Vec<Purchase> {
    keys.iter().map(|key| Purchase { customer: key.clone(), item: item.to_owned(), mark: 0 }).collect()
}

impl ScenarioRun<'_> {
    /// Replaces the first node, kills all homes of some keys, writes the keys to stand-ins, and restarts those before the homes.
    pub(crate) async fn restart_standins(&mut self) -> Result<(), FaultsError> {
        let joiners = self.cluster.nodes_that_are(Membership::Outside);
        self.start_joiners(&joiners).await?;
        let changes = [MemberChange::Replace { node: self.name(0), with: self.name(joiners[0]) }];
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.cluster.set_membership(0, Membership::Leaving);
        self.cluster.begin_outage(0);
        self.admit(&joiners).await?;
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        self.redirect();
        self.note(format!("first node replaced by {}", self.name(joiners[0])));

        let members = self.cluster.nodes_that_are(Membership::Member);
        let (homes, keys) = self.keys_of_one_home_set(members[0]).await?;
        let standins: Vec<usize> = members.into_iter().filter(|node| !homes.contains(node)).collect();
        // Until the homes are back there are two nodes, and for a while only one.
        self.cluster.outages().excuse(None);
        self.cluster.kill_at_once(&homes).await?;
        self.sleep(self.pace.death).await;
        let ledger = self.ledger.clone();
        let added = self.cluster.add_through(standins[0], &ledger, DEBTS, adds(&keys, "on stand-ins"), None).await?;
        let alone = added.iter().filter(|added| added.standins >= 2).count();
        self.note(format!(
            "{} killed; {} of {} adds acknowledged, {alone} by stand-ins alone",
            self.names(&homes),
            added.len(),
            keys.len()
        ));
        for &node in &standins {
            self.cluster.stop(node).await?;
            self.cluster.restart(node).await?;
        }
        for &node in &homes {
            self.cluster.restart(node).await?;
        }
        self.note(format!("{} stopped and restarted, then the homes started", self.names(&standins)));
        self.sleep(HANDOFF_WITHIN).await;
        self.cluster.outages().end_excuse(None);
        if alone == 0 {
            self.problems.push("no add was acknowledged by stand-ins alone: the scenario proves nothing".to_owned());
        }
        Ok(())
    }

    /// Finds three nodes and keys whose homes are exactly these.
    async fn keys_of_one_home_set(&self, node: usize) -> Result<(Vec<usize>, Vec<String>), FaultsError> {
        let (mut set, mut keys): (Vec<usize>, Vec<String>) = Default::default();
        for number in 0..CANDIDATES {
            let key = format!("debt {number}");
            let mut homes = self.cluster.homes_of(node, DEBTS, &key).await?;
            homes.sort_unstable();
            if set.is_empty() {
                set.clone_from(&homes);
            }
            if homes == set {
                keys.push(key);
            }
            if keys.len() == KEYS {
                break;
            }
        }
        Ok((set, keys))
    }

    /// Kills and restarts a node several times. Its later puts and deletes must not win over puts that begin later at other nodes.
    pub(crate) async fn crash_loop(&mut self) -> Result<(), FaultsError> {
        let lww = BucketChange { conflict: Some("lww".to_owned()), ..BucketChange::default() };
        self.cluster.set_bucket(1, REGISTERS, lww).await??;
        let mut keys = Vec::new();
        for number in 0..CANDIDATES {
            let key = format!("register {number}");
            let homes = self.cluster.homes_of(1, REGISTERS, &key).await?;
            let other = (0..self.cluster.nodes().len()).find(|node| !homes.contains(node));
            if homes.contains(&0) && keys.len() < KEYS / 2 {
                keys.extend(other.map(|other| (key, other)));
            }
        }
        for _ in 0..CRASHES {
            self.cluster.kill(0).await?;
            self.cluster.restart(0).await?;
            self.sleep(RUNS_FOR).await;
        }
        for (key, _) in &keys {
            self.write(0, key, Some("before")).await?;
            self.write(0, key, None).await?;
        }
        self.sleep(CLOCK_BOUND).await;
        let mut acknowledged = Vec::new();
        for (key, other) in &keys {
            if self.write(*other, key, Some("after")).await? {
                acknowledged.push(key.clone());
            }
        }
        self.note(format!(
            "kill -9 of {} {CRASHES} times; {} keys put and deleted through it, and {} s later put elsewhere",
            self.name(0),
            keys.len(),
            CLOCK_BOUND.as_secs()
        ));
        if acknowledged.is_empty() {
            self.problems.push("no put was acknowledged: the scenario proves nothing".to_owned());
        }
        let mut invisible = 0;
        for key in acknowledged {
            let read =
                self.cluster.through(1, move |client| async move { client.get(REGISTERS, &key).await }).await??;
            invisible += usize::from(read.values.first().is_none_or(|value| value.bytes != "after"));
        }
        if invisible > 0 {
            self.problems.push(format!(
                "{invisible} puts are lost that began {} s after all other writes of their keys had ended",
                CLOCK_BOUND.as_secs()
            ));
        }
        Ok(())
    }

    /// Puts or deletes a register through one node. Returns whether the write was acknowledged.
    async fn write(&self, node: usize, key: &str, value: Option<&'static str>) -> Result<bool, FaultsError> {
        let key = key.to_owned();
        let written = self.cluster.through(node, move |client| async move {
            let options = Options::default();
            match value {
                None => client.delete_with(REGISTERS, &key, None, &options).await,
                Some(value) => {
                    let value = Value::new(value, "text/plain");
                    client.put_with(REGISTERS, &key, value, None, &options).await
                }
            }
        });
        Ok(written.await?.is_ok())
    }

    /// Restarts a node on a snapshot that was taken while it ran, and writes through it before it can learn what it lacks.
    pub(crate) async fn hot_copy(&mut self) -> Result<(), FaultsError> {
        let mut keys = Vec::new();
        for number in 0..CANDIDATES {
            let key = format!("copied {number}");
            if keys.len() < KEYS && self.cluster.homes_of(1, COPIED, &key).await?.contains(&0) {
                keys.push(key);
            }
        }
        let ledger = self.ledger.clone();
        self.cluster.add_through(0, &ledger, COPIED, adds(&keys, "before the copy"), Some(3)).await?;
        let copy = self.cluster.copy_while_running(0).await?;
        self.cluster.add_through(0, &ledger, COPIED, adds(&keys, "after the copy"), Some(3)).await?;
        self.cluster.kill(0).await?;
        self.cluster.restore(0, &copy)?;
        let is_served = self.start_copy(0).await?;
        let again = self.cluster.add_through(0, &ledger, COPIED, adds(&keys, "on the copy"), None).await?;
        self.note(format!(
            "a copy of the running {} restored after kill -9 ({}); {} of {} adds acknowledged through it",
            self.name(0),
            if is_served { "the node starts on it" } else { "the node refuses to start on it, so it is renewed" },
            again.len(),
            keys.len()
        ));
        Ok(())
    }

    /// Restarts a node on an old copy of its directory, or renews it if it refuses that. Returns whether it started on the copy.
    pub(crate) async fn start_copy(&mut self, node: usize) -> Result<bool, FaultsError> {
        match self.cluster.restart(node).await {
            Ok(()) => Ok(true),
            Err(_) if self.cluster.has_died(node) => {
                self.cluster.wipe(node).await?;
                self.cluster.start_as_new_incarnation(node).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a node a weight above all others together. No replica may get lost by that.
    pub(crate) async fn heavy_weight(&mut self) -> Result<(), FaultsError> {
        let changes = [MemberChange::Weight { node: self.name(2), weight: HEAVY }];
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        self.problems.extend(proof::misplaced_partitions(self.cluster).await?);
        self.cluster.kill(0).await?;
        self.note(format!("{} gets weight {HEAVY}, then kill -9 of {}", self.name(2), self.name(0)));
        self.sleep(self.pace.fault).await;
        self.cluster.restart(0).await
    }

    /// Cuts off a zone while partitions are in transfer. Writes must go on on both sides.
    pub(crate) async fn cut_transfer(&mut self) -> Result<(), FaultsError> {
        let node = self.cluster.nodes().len() - 1;
        let changes = [MemberChange::Weight { node: self.name(node), weight: 300 }];
        let mut change = Change::make(self.cluster, self.ledger, &changes).await?;
        let left = change.check_progress(self.cluster).await?.left;
        self.cluster.cut_off(0)?;
        self.note(format!("{} gets weight 300", self.name(node)));
        self.cut(&format!("zone-1 cut off with {left} partitions in transfer")).await?;
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        Ok(())
    }
}
