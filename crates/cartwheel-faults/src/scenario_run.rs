//! The faults of each scenario, step by step.

use std::sync::Arc;
use std::time::Duration;

use cartwheel_client::MemberChange;

use crate::FaultsError;
use crate::change::{Change, ChangeMeasurement};
use crate::cluster::{Cluster, ZONES};
use crate::ledger::Ledger;
use crate::node::Membership;
use crate::scenario::{Pace, Scenario};
use crate::traffic::Traffic;

/// A node that hands over partitions is killed when at most this percentage of them is still being transferred.
const SENDER_KILLED_AT: usize = 85;
/// The same for a node that receives partitions.
const RECEIVER_KILLED_AT: usize = 50;
/// How long a new node may take to appear in the list of waiting nodes, and how long an added one to become ready.
const JOINS_WITHIN: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// A running scenario.
pub(crate) struct ScenarioRun<'a> {
    pub(crate) cluster: &'a mut Cluster,
    traffic: &'a Traffic,
    pub(crate) ledger: &'a Arc<Ledger>,
    pub(crate) pace: Pace,
    /// The faults so far, in order.
    pub(crate) done: Vec<String>,
    /// The measurements of a change of the members.
    pub(crate) measured: Option<ChangeMeasurement>,
    /// Violations that the scenario itself found.
    pub(crate) problems: Vec<String>,
}

impl<'a> ScenarioRun<'a> {
    pub(crate) const fn new(
        cluster: &'a mut Cluster,
        traffic: &'a Traffic,
        ledger: &'a Arc<Ledger>,
        pace: Pace,
    ) -> Self {
        Self { cluster, traffic, ledger, pace, done: Vec::new(), measured: None, problems: Vec::new() }
    }

    /// Runs the scenario's faults, up to the healing.
    pub(crate) async fn run(&mut self, scenario: Scenario) -> Result<(), FaultsError> {
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
                self.cluster.cut_link(0, to)?;
                let note = format!("packets from {} to {} dropped", self.name(0), self.name(to));
                self.cut(&note).await
            }
            Scenario::MuteNode => {
                self.cluster.mute_out_of_zone(0)?;
                let note = format!("packets from {} into other zones dropped", self.name(0));
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
            Scenario::CutTransfer => self.cut_transfer().await,
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
        self.note(format!("restarted after {} s", self.pace.fault.as_secs()));
        Ok(())
    }

    pub(crate) async fn cut(&mut self, what: &str) -> Result<(), FaultsError> {
        self.sleep(self.pace.cut).await;
        self.cluster.heal_network()?;
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
        let no_disk = || FaultsError::system("fill a disk")(std::io::Error::other("the node has no small disk"));
        self.cluster.small_disk(node).ok_or_else(no_disk)?.fill()?;
        self.sleep(self.pace.fault).await;
        self.cluster.small_disk(node).ok_or_else(no_disk)?.free()?;
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
        self.note("all nodes stopped with SIGTERM and restarted, one after another".to_owned());
        Ok(())
    }

    async fn lose_only_copy(&mut self) -> Result<(), FaultsError> {
        self.cluster.cut_off(2)?;
        self.sleep(self.pace.fault).await;
        let node = self.cluster.first_in(2);
        self.cluster.wipe(node).await?;
        self.cluster.heal_network_except(node)?;
        self.note(format!("{} took writes alone and lost its disk", self.name(node)));
        Ok(())
    }

    async fn cut_strong(&mut self) -> Result<(), FaultsError> {
        self.cluster.cut_off(0)?;
        self.ledger.cut(0);
        self.sleep(self.pace.cut).await;
        self.ledger.heal();
        self.cluster.heal_network()?;
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
        let joiners = self.cluster.nodes_that_are(Membership::Outside);
        self.start_joiners(&joiners).await?;
        let changes: Vec<MemberChange> =
            joiners.iter().map(|&node| MemberChange::Add { node: self.name(node), weight: None }).collect();
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.admit(&joiners).await?;
        self.note(format!("{} added", self.names(&joiners)));
        self.transfer_with_kills(
            change,
            &[(self.cluster.first_in(1), SENDER_KILLED_AT), (joiners[0], RECEIVER_KILLED_AT)],
        )
        .await
    }

    async fn shrink(&mut self) -> Result<(), FaultsError> {
        let leavers: Vec<usize> = (0..ZONES).filter_map(|zone| self.cluster.nodes_in(zone).nth(1)).collect();
        let changes: Vec<MemberChange> =
            leavers.iter().map(|&node| MemberChange::Remove { node: self.name(node) }).collect();
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        for &node in &leavers {
            self.cluster.set_membership(node, Membership::Leaving);
            // It ends once it has handed over everything, and that moment cannot be known in advance.
            self.cluster.begin_outage(node);
        }
        self.note(format!("{} removed", self.names(&leavers)));
        self.transfer_with_kills(
            change,
            &[(leavers[1], SENDER_KILLED_AT), (self.cluster.first_in(0), RECEIVER_KILLED_AT)],
        )
        .await
    }

    async fn replace_dead(&mut self) -> Result<(), FaultsError> {
        let joiners = self.cluster.nodes_that_are(Membership::Outside);
        let (dead, joiner) = (self.cluster.first_in(0), joiners[0]);
        self.cluster.kill(dead).await?;
        self.cluster.set_membership(dead, Membership::Gone);
        self.traffic.redirect(self.cluster);
        self.sleep(self.pace.fault).await;
        self.start_joiners(&joiners).await?;
        let changes = [MemberChange::Replace { node: self.name(dead), with: self.name(joiner) }];
        let change = Change::make(self.cluster, self.ledger, &changes).await?;
        self.admit(&joiners).await?;
        self.note(format!(
            "{} killed for good and replaced by {} {} s later",
            self.name(dead),
            self.name(joiner),
            self.pace.fault.as_secs()
        ));
        // Two homes are left of each partition that the dead node held, and a strong request needs both. So neither of them is killed.
        self.transfer_with_kills(change, &[(joiner, RECEIVER_KILLED_AT)]).await
    }

    /// Starts new nodes, and waits until all members list them as waiting.
    pub(crate) async fn start_joiners(&mut self, joiners: &[usize]) -> Result<(), FaultsError> {
        start_joiners(self.cluster, joiners).await
    }

    /// Waits until the added nodes are ready, and sends clients to them.
    pub(crate) async fn admit(&mut self, joiners: &[usize]) -> Result<(), FaultsError> {
        for &node in joiners {
            self.cluster.ready(node).await?;
            self.cluster.set_membership(node, Membership::Member);
        }
        self.traffic.redirect(self.cluster);
        Ok(())
    }

    /// Waits until all transfers are done. Each of the `kills` is a node that is killed and restarted once at most that percentage of the
    /// partitions is still being transferred.
    async fn transfer_with_kills(&mut self, mut change: Change, kills: &[(usize, usize)]) -> Result<(), FaultsError> {
        for &(node, percent) in kills {
            let left = change.until(self.cluster, percent, self.pace.change).await?;
            self.cluster.kill(node).await?;
            self.note(format!("kill -9 of {} with {left} partitions in transfer", self.name(node)));
            self.sleep(self.pace.death).await;
            self.cluster.restart(node).await?;
        }
        self.measured = Some(change.settle(self.cluster, self.ledger, self.pace.change).await?);
        self.traffic.redirect(self.cluster);
        Ok(())
    }

    /// Gives clients the addresses of the nodes that serve now.
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

/// Starts new nodes, and waits until all members list them as waiting.
pub(crate) async fn start_joiners(cluster: &mut Cluster, joiners: &[usize]) -> Result<(), FaultsError> {
    for &node in joiners {
        cluster.start_outside(node)?;
    }
    let started = async {
        loop {
            let reports = cluster.node_reports().await?;
            let is_listed = |node: &usize| {
                let name = &cluster.nodes()[*node].name;
                // A stopped or paused member learns of the joiner later.
                let mut lists = reports.iter().filter_map(|report| report.transfers.as_ref()).peekable();
                lists.peek().is_some() && lists.all(|transfers| transfers.waiting.contains(name))
            };
            if joiners.iter().all(is_listed) {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    };
    let in_time = tokio::time::timeout(JOINS_WITHIN, started).await;
    in_time.unwrap_or_else(|_| Err(cluster.nodes()[joiners[0]].failed("is not listed as waiting by all members")))
}
