//! The faults themselves: what is done in each scenario, step by step.

use std::time::Duration;

use crate::FaultsError;
use crate::cluster::Cluster;
use crate::scenario::{Pace, Scenario};

/// A scenario under way.
pub(crate) struct Act<'a> {
    cluster: &'a mut Cluster,
    pace: Pace,
    /// What was done, in order.
    pub(crate) done: Vec<String>,
}

impl<'a> Act<'a> {
    /// A scenario in which nothing has been done yet.
    pub(crate) const fn new(cluster: &'a mut Cluster, pace: Pace) -> Self {
        Self { cluster, pace, done: Vec::new() }
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
