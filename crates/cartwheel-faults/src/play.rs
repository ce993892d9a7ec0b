//! Playing a scenario: a cluster of its own, writers, the fault, the healing, and what is there in the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::FaultsError;
use crate::act::Act;
use crate::change::Measured;
use crate::cluster::Cluster;
use crate::judge::{EXPECTED, Outcome};
use crate::ledger::Ledger;
use crate::proof::{self, Equality};
use crate::report::Row;
use crate::repro;
use crate::scenario::{Pace, Scenario};
use crate::stock;
use crate::timing::Tails;
use crate::traffic::Traffic;

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
    /// What a change of the members took, if there was one.
    pub change: Option<Measured>,
    /// The 99th percentiles of what clients waited for reads, and for writes, before, during and after it.
    pub tails: (Tails, Tails),
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
    /// Plays scenarios, so many at the same time, each on a cluster of its own.
    pub async fn play_all(&self, scenarios: &[Scenario], at_once: usize) -> Vec<Row> {
        let mut played = Vec::new();
        let (mut waiting, mut playing) = (scenarios.iter().copied().enumerate(), JoinSet::new());
        loop {
            while playing.len() < at_once.max(1)
                && let Some((at, scenario)) = waiting.next()
            {
                let stage = self.clone();
                playing.spawn(async move { (at, (scenario, stage.play(scenario).await)) });
            }
            match playing.join_next().await {
                None => break,
                Some(Ok(ended)) => played.push(ended),
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        played.sort_by_key(|(at, _)| *at);
        played.into_iter().map(|(_, row)| row).collect()
    }

    /// Plays a scenario on a cluster of its own.
    ///
    /// # Errors
    /// If it cannot be played to its end.
    pub async fn play(&self, scenario: Scenario) -> Result<Played, FaultsError> {
        eprintln!("playing {}", scenario.name());
        let small_disks: &[usize] = if scenario == Scenario::FullDisk { &[0] } else { &[] };
        let mut cluster = Cluster::start(&self.bin, scenario.cast(self.nodes), small_disks).await?;
        let ledger = Arc::new(Ledger::new(cluster.outages().clone()));
        if scenario == Scenario::RestartStandins {
            repro::grow_from_one(&mut cluster, &ledger, self.pace).await?;
        }
        let mut trouble = proof::misplaced(&cluster).await?;
        if scenario.has_stock() {
            stock::fill(&cluster, &ledger, self.pace.stock).await?;
        }
        // Long enough for a percentile, where there is one.
        let calm = if scenario.changes_members() { self.pace.calm * 2 } else { self.pace.calm };
        let traffic = Traffic::start(&cluster, &ledger, scenario.writing(self.pace))?;
        let mut act = Act::new(&mut cluster, &traffic, &ledger, self.pace);
        tokio::time::sleep(calm).await;
        act.perform(scenario).await?;
        let healed = Instant::now();
        tokio::time::sleep(calm).await;
        let (done, change) = (act.done, act.measured);
        trouble.extend(act.trouble);
        traffic.stop().await?;

        let equality = match scenario.is_canary() {
            true => Equality::NotAsked,
            false => proof::equality(&cluster, &self.bin, healed, EXPECTED.equal_within).await?,
        };
        let again = !matches!(equality, Equality::After(_));
        let found = proof::read_back(&cluster, &ledger, again).await?;
        if !scenario.is_canary() {
            trouble.extend(proof::misplaced(&cluster).await?);
        }
        trouble.extend(change.iter().flat_map(|change| change.trouble.clone()));
        let (counts, died, was_cut) = (ledger.counts(), cluster.died(), scenario.cuts_strong_requests());
        let outcome = Outcome { counts, found, equality, died, trouble, was_cut };
        let is_good = scenario.is_canary() || outcome.complaints(&EXPECTED).is_empty();
        let remains = (!is_good).then(|| {
            let logs = cluster.nodes().iter().map(|node| (node.name.clone(), node.log_tail())).collect();
            Remains { dir: cluster.keep(), logs }
        });
        Ok(Played { done, outcome, change, tails: ledger.tails(), remains })
    }
}
