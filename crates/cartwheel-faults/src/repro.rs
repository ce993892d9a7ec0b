//! Faults that lost acknowledged writes once, or refused some: each played as it was found.

use std::time::Duration;

use cart::purchases::Purchase;
use cartwheel_client::{BucketChange, MemberChange, Options, Value};

use crate::FaultsError;
use crate::act::{Act, knock};
use crate::change::Change;
use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::node::Standing;
use crate::proof;
use crate::scenario::Pace;

/// How many keys are written besides the traffic.
const KEYS: usize = 40;
/// Among so many are those that are homed where they should be.
const CANDIDATES: usize = 300;
/// How far apart clocks may be before a node takes no writes. An acknowledged put that begins so long after another one has ended wins.
const CLOCK_BOUND: Duration = Duration::from_secs(10);
/// How often a node of a crash loop is killed, and how long it incarnations between.
const CRASHES: usize = 3;
const INCARNATIONS: Duration = Duration::from_secs(1);
/// More than all others together.
const HEAVY: u32 = 60_000;
/// How long stand-ins may take to hand over what they hold, before it is looked where it is.
const HANDS_OVER_WITHIN: Duration = Duration::from_secs(5);

const DEBTS: &str = "debts";
const REGISTERS: &str = "registers";
const COPIED: &str = "copied";

/// Grows a cluster of one founder by all that wait but the last.
pub(crate) async fn grow_from_one(cluster: &mut Cluster, ledger: &Ledger, pace: Pace) -> Result<(), FaultsError> {
    let mut comers = cluster.all_that_are(Standing::Outside);
    comers.pop();
    knock(cluster, &comers).await?;
    let name = |&node: &usize| cluster.nodes()[node].name.clone();
    let changes: Vec<MemberChange> =
        comers.iter().map(|node| MemberChange::Add { node: name(node), weight: None }).collect();
    let change = Change::make(cluster, ledger, &changes).await?;
    for &node in &comers {
        cluster.ready(node).await?;
        cluster.becomes(node, Standing::Member);
    }
    change.settle(cluster, ledger, pace.change).await?;
    Ok(())
}

fn adds(keys: &[String], item: &str) -> Vec<Purchase> {
    keys.iter().map(|key| Purchase { customer: key.clone(), item: item.to_owned(), mark: 0 }).collect()
}

impl Act<'_> {
    /// The founder is replaced; all homes of some keys die; the keys are written to stand-ins, which are restarted before the homes.
    pub(crate) async fn restart_standins(&mut self) -> Result<(), FaultsError> {
        let comers = self.cluster.all_that_are(Standing::Outside);
        self.knock(&comers).await?;
        let changes = [MemberChange::Replace { node: self.name(0), with: self.name(comers[0]) }];
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.cluster.becomes(0, Standing::Leaving);
        self.cluster.away(0);
        self.let_in(&comers).await?;
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        self.redirect();
        self.note(format!("the founder replaced by {}", self.name(comers[0])));

        let members = self.cluster.all_that_are(Standing::Member);
        let (homes, keys) = self.keys_of_one_home_set(members[0]).await?;
        let standins: Vec<usize> = members.into_iter().filter(|node| !homes.contains(node)).collect();
        // Until the homes are back there are two nodes, and for a while one.
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
        self.note(format!("{} stopped and started again, then the homes started", self.names(&standins)));
        self.sleep(HANDS_OVER_WITHIN).await;
        self.cluster.outages().end_excuse(None);
        if alone == 0 {
            self.trouble.push("no add was acknowledged by stand-ins alone: nothing was tried".to_owned());
        }
        Ok(())
    }

    /// Three nodes, and some keys whose homes they are.
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

    /// A node is killed and started a few times. What it then writes and deletes must not outlive what is written later elsewhere.
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
            self.sleep(INCARNATIONS).await;
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
            self.trouble.push("no put was acknowledged: nothing was tried".to_owned());
        }
        let mut invisible = 0;
        for key in acknowledged {
            let read =
                self.cluster.through(1, move |client| async move { client.get(REGISTERS, &key).await }).await??;
            invisible += usize::from(read.values.first().is_none_or(|value| value.bytes != "after"));
        }
        if invisible > 0 {
            self.trouble.push(format!(
                "{invisible} puts cannot be seen that began {} s after everything else on their keys had ended",
                CLOCK_BOUND.as_secs()
            ));
        }
        Ok(())
    }

    /// Puts or deletes a register through a node; says whether that was acknowledged.
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

    /// A snapshot of a running node is put back, and the node writes on before it can have learnt what it lacks.
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
        self.cluster.put_back(0, &copy)?;
        let is_served = self.start_copy(0).await?;
        let again = self.cluster.add_through(0, &ledger, COPIED, adds(&keys, "on the copy"), None).await?;
        self.note(format!(
            "a copy of the running {} put back after kill -9 ({}); {} of {} adds acknowledged through it",
            self.name(0),
            if is_served { "it is served" } else { "it refuses to be served, and is renewed" },
            again.len(),
            keys.len()
        ));
        Ok(())
    }

    /// Starts a node on an old copy of its directory. It may serve that, or end and be renewed; says which.
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

    /// A weight above all others together must not take a replica away.
    pub(crate) async fn heavy_weight(&mut self) -> Result<(), FaultsError> {
        let changes = [MemberChange::Weight { node: self.name(2), weight: HEAVY }];
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        self.trouble.extend(proof::misplaced(self.cluster).await?);
        self.cluster.kill(0).await?;
        self.note(format!("{} gets weight {HEAVY}, then kill -9 of {}", self.name(2), self.name(0)));
        self.sleep(self.pace.fault).await;
        self.cluster.restart(0).await
    }

    /// Writes must go on on both sides of a cut while partitions are on their way.
    pub(crate) async fn cut_moving(&mut self) -> Result<(), FaultsError> {
        let node = self.cluster.nodes().len() - 1;
        let changes = [MemberChange::Weight { node: self.name(node), weight: 300 }];
        let mut change = Change::make(self.cluster, self.ledger, &changes).await?;
        let left = change.look(self.cluster).await?.left;
        self.cluster.cut_off(0)?;
        self.note(format!("{} gets weight 300", self.name(node)));
        self.cut(&format!("zone-1 cut off with {left} partitions on their way,")).await?;
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        Ok(())
    }
}
