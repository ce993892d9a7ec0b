//! The faults themselves: what is done in each scenario, step by step.

use std::sync::Arc;
use std::time::Duration;

use cartwheel_client::MemberChange;

use crate::FaultsError;
use crate::change::{Change, Measured};
use crate::cluster::{Cluster, ZONES};
use crate::ledger::Ledger;
use crate::node::Standing;
use crate::scenario::{Pace, Scenario};
use crate::traffic::Traffic;

/// A node that hands over is killed when at most so many percent of the partitions are on their way still.
const GIVER_DIES_AT: usize = 85;
/// A node that takes over is killed then.
const TAKER_DIES_AT: usize = 50;
/// How long a node may take to ask to be let in, and one that was let in to be ready.
const COMES_WITHIN: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// A scenario under way.
pub(crate) struct Act<'a> {
    pub(crate) cluster: &'a mut Cluster,
    traffic: &'a Traffic,
    pub(crate) ledger: &'a Arc<Ledger>,
    pub(crate) pace: Pace,
    /// What was done, in order.
    pub(crate) done: Vec<String>,
    /// What a change of the members took.
    pub(crate) measured: Option<Measured>,
    /// What is not as it should be.
    pub(crate) trouble: Vec<String>,
}

impl<'a> Act<'a> {
    /// A scenario in which nothing has been done yet.
    pub(crate) const fn new(
        cluster: &'a mut Cluster,
        traffic: &'a Traffic,
        ledger: &'a Arc<Ledger>,
        pace: Pace,
    ) -> Self {
        Self { cluster, traffic, ledger, pace, done: Vec::new(), measured: None, trouble: Vec::new() }
    }

    /// Does what the scenario says, up to the healing.
    pub(crate) async fn perform(&mut self, scenario: Scenario) -> Result<(), FaultsError> {
        match scenario {
            Scenario::KillOne => self.kill(&[0]).await,
            Scenario::KillTwo => {
                let victims = [0, 1].map(|zone| self.cluster.first_in(zone));
                self.kill(&victims).await
            }
            Scenario::KillMost => {
                let all = self.cluster.nodes().len();
                self.kill(&(0..all - 1).collect::<Vec<_>>()).await
            }
            Scenario::CutZone => {
                self.cluster.cut_off(0)?;
                self.cut("zone-1 (2 nodes and its clients) cut off").await
            }
            Scenario::CutOneWay => {
                let to = self.cluster.first_in(1);
                self.cluster.mute_towards(0, to)?;
                let note = format!("what {} sends to {} lost", self.name(0), self.name(to));
                self.cut(&note).await
            }
            Scenario::MuteNode => {
                self.cluster.mute_out_of_zone(0)?;
                let note = format!("what {} sends into other zones lost", self.name(0));
                self.cut(&note).await
            }
            Scenario::Pause => self.pause().await,
            Scenario::FullDisk => self.fill_disk(0).await,
            Scenario::WipeDisk => self.wipe().await,
            Scenario::RollingRestart => self.restart_all().await,
            Scenario::CutStrong => self.cut_strong().await,
            Scenario::LoseZone => self.lose_zone().await,
            Scenario::Grow => self.grow().await,
            Scenario::Shrink => self.shrink().await,
            Scenario::ReplaceDead => self.replace_dead().await,
            Scenario::LoseOnlyCopy => self.lose_only_copy().await,
            Scenario::RestartStandins => self.restart_standins().await,
            Scenario::CrashLoop => self.crash_loop().await,
            Scenario::HotCopy => self.hot_copy().await,
            Scenario::HeavyWeight => self.heavy_weight().await,
            Scenario::CutMoving => self.cut_moving().await,
        }
    }

    async fn kill(&mut self, victims: &[usize]) -> Result<(), FaultsError> {
        for &node in victims {
            self.cluster.kill(node).await?;
        }
        let names: Vec<String> = victims.iter().map(|&node| self.name(node)).collect();
        self.note(format!("kill -9 of {}", names.join(" and ")));
        self.sleep(self.pace.fault).await;
        for &node in victims {
            self.cluster.restart(node).await?;
        }
        self.note(format!("started again after {} s", self.pace.fault.as_secs()));
        Ok(())
    }

    pub(crate) async fn cut(&mut self, what: &str) -> Result<(), FaultsError> {
        self.sleep(self.pace.cut).await;
        self.cluster.join()?;
        self.note(format!("{what} for {} s", self.pace.cut.as_secs()));
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), FaultsError> {
        let node = self.cluster.first_in(1);
        self.cluster.pause(node)?;
        self.sleep(self.pace.pause).await;
        self.cluster.resume(node)?;
        self.note(format!("SIGSTOP of {} for {} s", self.name(node), self.pace.pause.as_secs()));
        Ok(())
    }

    async fn fill_disk(&mut self, node: usize) -> Result<(), FaultsError> {
        let nobody = || FaultsError::system("fill a disk")(std::io::Error::other("the node has no small one"));
        self.cluster.small_disk(node).ok_or_else(nobody)?.fill()?;
        self.sleep(self.pace.fault).await;
        self.cluster.small_disk(node).ok_or_else(nobody)?.make_room()?;
        self.note(format!("disk of {} filled to the last byte for {} s", self.name(node), self.pace.fault.as_secs()));
        Ok(())
    }

    async fn wipe(&mut self) -> Result<(), FaultsError> {
        let node = self.cluster.first_in(1);
        self.cluster.wipe(node).await?;
        self.sleep(self.pace.fault).await;
        self.cluster.start_as_new_incarnation(node).await?;
        self.note(format!("{} killed, its disk wiped, back as a new incarnation", self.name(node)));
        Ok(())
    }

    async fn restart_all(&mut self) -> Result<(), FaultsError> {
        for node in 0..self.cluster.nodes().len() {
            self.cluster.stop(node).await?;
            self.cluster.restart(node).await?;
        }
        self.note("all nodes stopped with SIGTERM and started again, one after the other".to_owned());
        Ok(())
    }

    async fn lose_only_copy(&mut self) -> Result<(), FaultsError> {
        self.cluster.cut_off(2)?;
        self.sleep(self.pace.fault).await;
        let node = self.cluster.first_in(2);
        self.cluster.wipe(node).await?;
        self.cluster.join_without(node)?;
        self.note(format!("{} took writes alone and lost its disk", self.name(node)));
        Ok(())
    }

    async fn cut_strong(&mut self) -> Result<(), FaultsError> {
        self.cluster.cut_off(0)?;
        self.ledger.cut(0);
        self.sleep(self.pace.cut).await;
        self.ledger.heal();
        self.cluster.join()?;
        self.note(format!("zone-1 (2 nodes and its clients) cut off for {} s", self.pace.cut.as_secs()));
        Ok(())
    }

    async fn lose_zone(&mut self) -> Result<(), FaultsError> {
        let zone: Vec<usize> = self.cluster.nodes_in(1).collect();
        self.cluster.kill_at_once(&zone).await?;
        for &node in &zone {
            self.cluster.wipe(node).await?;
        }
        self.sleep(self.pace.fault).await;
        for &node in &zone {
            self.cluster.start_as_new_incarnation(node).await?;
        }
        self.note(format!(
            "all of zone-2 ({}) killed at once, disks wiped, back as new incarnations",
            self.names(&zone)
        ));
        Ok(())
    }

    async fn grow(&mut self) -> Result<(), FaultsError> {
        let comers = self.cluster.all_that_are(Standing::Outside);
        self.knock(&comers).await?;
        let changes: Vec<MemberChange> =
            comers.iter().map(|&node| MemberChange::Add { node: self.name(node), weight: None }).collect();
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.let_in(&comers).await?;
        self.note(format!("{} come", self.names(&comers)));
        self.move_with_deaths(change, &[(self.cluster.first_in(1), GIVER_DIES_AT), (comers[0], TAKER_DIES_AT)]).await
    }

    async fn shrink(&mut self) -> Result<(), FaultsError> {
        let leavers: Vec<usize> = (0..ZONES).filter_map(|zone| self.cluster.nodes_in(zone).nth(1)).collect();
        let changes: Vec<MemberChange> =
            leavers.iter().map(|&node| MemberChange::Remove { node: self.name(node) }).collect();
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        for &node in &leavers {
            self.cluster.becomes(node, Standing::Leaving);
            // It ends when it has handed over everything, which nobody can tell beforehand.
            self.cluster.away(node);
        }
        self.note(format!("{} leave", self.names(&leavers)));
        self.move_with_deaths(change, &[(leavers[1], GIVER_DIES_AT), (self.cluster.first_in(0), TAKER_DIES_AT)]).await
    }

    async fn replace_dead(&mut self) -> Result<(), FaultsError> {
        let comers = self.cluster.all_that_are(Standing::Outside);
        let (dead, comer) = (self.cluster.first_in(0), comers[0]);
        self.cluster.kill(dead).await?;
        self.cluster.becomes(dead, Standing::Gone);
        self.traffic.redirect(self.cluster);
        self.sleep(self.pace.fault).await;
        self.knock(&comers).await?;
        let changes = [MemberChange::Replace { node: self.name(dead), with: self.name(comer) }];
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.let_in(&comers).await?;
        self.note(format!(
            "{} killed for good, and replaced by {} {} s later",
            self.name(dead),
            self.name(comer),
            self.pace.fault.as_secs()
        ));
        // Of what the dead one held, two homes are left, and a strong request needs both.
        self.move_with_deaths(change, &[(comer, TAKER_DIES_AT)]).await
    }

    /// Starts nodes that are to come, and waits until the cluster knows that they wait.
    pub(crate) async fn knock(&mut self, comers: &[usize]) -> Result<(), FaultsError> {
        knock(self.cluster, comers).await
    }

    /// Waits until those who were let in are ready, and sends clients to them.
    pub(crate) async fn let_in(&mut self, comers: &[usize]) -> Result<(), FaultsError> {
        for &node in comers {
            self.cluster.ready(node).await?;
            self.cluster.becomes(node, Standing::Member);
        }
        self.traffic.redirect(self.cluster);
        Ok(())
    }

    /// Waits until all data is where it is wished. On the way nodes are killed and started again, each when so many percent of the
    /// partitions are on their way still.
    async fn move_with_deaths(&mut self, mut change: Change, deaths: &[(usize, usize)]) -> Result<(), FaultsError> {
        for &(node, percent) in deaths {
            let left = change.until(self.cluster, percent, self.pace.change).await?;
            self.cluster.kill(node).await?;
            self.note(format!("kill -9 of {} with {left} partitions on their way", self.name(node)));
            self.sleep(self.pace.death).await;
            self.cluster.restart(node).await?;
        }
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        self.traffic.redirect(self.cluster);
        Ok(())
    }

    /// Tells clients which nodes serve now.
    pub(crate) fn redirect(&self) {
        self.traffic.redirect(self.cluster);
    }

    pub(crate) fn names(&self, nodes: &[usize]) -> String {
        nodes.iter().map(|&node| self.name(node)).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn name(&self, node: usize) -> String {
        self.cluster.nodes()[node].name.clone()
    }

    pub(crate) fn note(&mut self, what: String) {
        self.done.push(what);
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Starts nodes that are to come, and waits until the cluster knows that they wait.
pub(crate) async fn knock(cluster: &mut Cluster, comers: &[usize]) -> Result<(), FaultsError> {
    for &node in comers {
        cluster.start_outside(node)?;
    }
    let knocked = async {
        loop {
            let looks = cluster.looks().await?;
            let known = |node: &usize| {
                let name = &cluster.nodes()[*node].name;
                // One that stands still hears of it later.
                let mut answers = looks.iter().filter_map(|look| look.moves.as_ref()).peekable();
                answers.peek().is_some() && answers.all(|moves| moves.waiting.contains(name))
            };
            if comers.iter().all(known) {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    };
    let in_time = tokio::time::timeout(COMES_WITHIN, knocked).await;
    in_time.unwrap_or_else(|_| Err(cluster.nodes()[comers[0]].failed("has not asked everybody to be let in")))
}
