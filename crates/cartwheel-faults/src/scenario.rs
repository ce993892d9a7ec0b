//! The scenarios: what is done to the cluster while clients in all zones write.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::FaultsError;
use crate::cluster::Cluster;
use crate::judge::{EXPECTED, Outcome};
use crate::ledger::Ledger;
use crate::proof::{self, Equality};
use crate::traffic::{Traffic, Writing};

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// One node is killed and started again.
    KillOne,
    /// Two nodes in different zones are killed at once: of many keys only one home is left.
    KillTwo,
    /// A zone of two nodes is cut off, and written to on both sides.
    CutZone,
    /// What one node sends to one other is lost.
    CutOneWay,
    /// What one node sends into other zones is lost, but it hears them.
    MuteNode,
    /// A node is paused.
    Pause,
    /// Something else fills a node's disk to the last byte.
    FullDisk,
    /// A node loses its disk and comes back empty.
    WipeDisk,
    /// All nodes are stopped and started again, one after the other.
    RollingRestart,
    /// All nodes but one are killed: writes must be refused. Shows that refusals are noticed.
    KillMost,
    /// A node that alone acknowledged writes loses its disk: adds must be lost. Shows that losses are noticed.
    LoseOnlyCopy,
}

impl Scenario {
    /// Those in which nothing may go wrong.
    pub const ALL: [Self; 9] = [
        Self::KillOne,
        Self::KillTwo,
        Self::CutZone,
        Self::CutOneWay,
        Self::MuteNode,
        Self::Pause,
        Self::FullDisk,
        Self::WipeDisk,
        Self::RollingRestart,
    ];

    /// Those in which something must go wrong, or whoever looks for it is blind.
    pub const CANARIES: [Self; 2] = [Self::KillMost, Self::LoseOnlyCopy];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillOne => "kill-one",
            Self::KillTwo => "kill-two",
            Self::CutZone => "cut-zone",
            Self::CutOneWay => "cut-one-way",
            Self::MuteNode => "mute-node",
            Self::Pause => "pause",
            Self::FullDisk => "full-disk",
            Self::WipeDisk => "wipe-disk",
            Self::RollingRestart => "rolling-restart",
            Self::KillMost => "kill-most",
            Self::LoseOnlyCopy => "lose-only-copy",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain(Self::CANARIES).find(|scenario| scenario.name() == name)
    }

    /// How the clients write meanwhile.
    const fn writing(self, pace: Pace) -> Writing {
        let replicas = if matches!(self, Self::LoseOnlyCopy) { Some(1) } else { None };
        Writing { replicas, within: pace.write }
    }

    const fn is_canary(self) -> bool {
        matches!(self, Self::KillMost | Self::LoseOnlyCopy)
    }
}

/// How long things take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Writes before and after the fault.
    pub calm: Duration,
    /// A node is dead, or its disk is full.
    pub fault: Duration,
    /// The network is cut.
    pub cut: Duration,
    /// A node is paused.
    pub pause: Duration,
    /// One node may take so long over a write.
    pub write: Duration,
}

impl Pace {
    /// Long enough for a cluster to settle down with the fault.
    pub const LONG: Self = Self::of_secs(5, 15, 30, 20, 5);
    /// Short enough for every commit.
    pub const SHORT: Self = Self::of_secs(1, 5, 5, 5, 2);

    const fn of_secs(calm: u64, fault: u64, cut: u64, pause: u64, write: u64) -> Self {
        let (calm, fault, cut) = (Duration::from_secs(calm), Duration::from_secs(fault), Duration::from_secs(cut));
        Self { calm, fault, cut, pause: Duration::from_secs(pause), write: Duration::from_secs(write) }
    }
}

/// How scenarios are played.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stage {
    /// The cartwheel binary.
    pub bin: PathBuf,
    /// How many nodes there are, at least 5.
    pub nodes: u8,
    /// How long things take.
    pub pace: Pace,
}

/// A scenario that was played to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Played {
    /// What was done, in order.
    pub done: Vec<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// If something is to be complained of: where data and logs are left, and the logs' ends.
    pub remains: Option<Remains>,
}

/// What a scenario that went wrong left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remains {
    /// Where data and logs are, until the next run.
    pub dir: PathBuf,
    /// Each node's name and the end of its log.
    pub logs: Vec<(String, String)>,
}

impl Stage {
    /// Plays a scenario on a cluster of its own.
    ///
    /// # Errors
    /// If it cannot be played to its end.
    pub async fn play(&self, scenario: Scenario) -> Result<Played, FaultsError> {
        let small_disks: &[usize] = if scenario == Scenario::FullDisk { &[0] } else { &[] };
        let mut cluster = Cluster::start(&self.bin, self.nodes, small_disks).await?;
        let ledger = Arc::new(Ledger::new(cluster.outages().clone()));
        let traffic = Traffic::start(&cluster, &ledger, scenario.writing(self.pace))?;
        let mut act = Act { cluster: &mut cluster, pace: self.pace, done: Vec::new() };
        act.sleep(self.pace.calm).await;
        act.perform(scenario).await?;
        let healed = Instant::now();
        act.sleep(self.pace.calm).await;
        let done = act.done;
        traffic.stop().await?;

        let equality = match scenario.is_canary() {
            true => Equality::NotAsked,
            false => proof::equality(&cluster, &self.bin, healed, EXPECTED.equal_within).await?,
        };
        let again = !matches!(equality, Equality::After(_));
        let found = proof::read_back(&cluster, &ledger, again).await?;
        let outcome = Outcome { counts: ledger.counts(), found, equality, died: cluster.died() };
        let is_good = scenario.is_canary() || outcome.complaints(&EXPECTED).is_empty();
        let remains = (!is_good).then(|| {
            let logs = cluster.nodes().iter().map(|node| (node.name().to_owned(), node.log_tail())).collect();
            Remains { dir: cluster.keep(), logs }
        });
        Ok(Played { done, outcome, remains })
    }
}

/// A scenario under way.
struct Act<'a> {
    cluster: &'a mut Cluster,
    pace: Pace,
    done: Vec<String>,
}

impl Act<'_> {
    /// Does what the scenario says, up to the healing.
    async fn perform(&mut self, scenario: Scenario) -> Result<(), FaultsError> {
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
            Scenario::LoseOnlyCopy => self.lose_only_copy().await,
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

    async fn cut(&mut self, what: &str) -> Result<(), FaultsError> {
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
        self.cluster.start_as_new_life(node).await?;
        self.note(format!("{} killed, its disk wiped, back as a new life", self.name(node)));
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

    fn name(&self, node: usize) -> String {
        self.cluster.nodes()[node].name().to_owned()
    }

    fn note(&mut self, what: String) {
        self.done.push(what);
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_found_by_their_names() {
        for scenario in Scenario::ALL.into_iter().chain(Scenario::CANARIES) {
            assert_eq!(Scenario::of_name(scenario.name()), Some(scenario));
        }
        assert_eq!(Scenario::of_name("peace"), None);
    }
}
