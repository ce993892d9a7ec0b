//! Runs a scenario: starts a cluster and its writers, runs the faults, heals them, and checks the data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::FaultsError;
use crate::change::ChangeMeasurement;
use crate::cluster::Cluster;
use crate::judge::{EXPECTED, Outcome};
use crate::ledger::Ledger;
use crate::proof::{self, Equality};
use crate::report::Row;
use crate::repro;
use crate::scenario::{Pace, Scenario};
use crate::scenario_run::ScenarioRun;
use crate::stock;
use crate::timing::Tails;
use crate::traffic::Traffic;

/// The settings of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runner {
    /// The path of the cartwheel binary.
    pub bin: PathBuf,
    /// The number of nodes, at least 5.
    pub nodes: u8,
    /// The durations of a scenario's parts.
    pub pace: Pace,
}

/// The result of a scenario that ran to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScenarioResult {
    /// The faults, in order.
    pub done: Vec<String>,
    /// The counts and the checks.
    pub outcome: Outcome,
    /// The measurements of a change of the members, if there was one.
    pub change: Option<ChangeMeasurement>,
    /// The 99th percentiles of reads and of writes: before, during and after the change.
    pub tails: (Tails, Tails),
    /// The kept data and logs, if there are violations.
    pub kept: Option<KeptFiles>,
}

/// The files that a failed scenario keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptFiles {
    /// The directory of data and logs, which the next run removes.
    pub dir: PathBuf,
    /// The name of each node and the end of its log.
    pub logs: Vec<(String, String)>,
}

impl Runner {
    /// Runs scenarios, `at_once` of them at the same time, each on a cluster of its own.
    pub async fn run_all(&self, scenarios: &[Scenario], at_once: usize) -> Vec<Row> {
        let mut results = Vec::new();
        let (mut waiting, mut running) = (scenarios.iter().copied().enumerate(), JoinSet::new());
        loop {
            while running.len() < at_once.max(1)
                && let Some((at, scenario)) = waiting.next()
            {
                let runner = self.clone();
                running.spawn(async move { (at, (scenario, runner.run(scenario).await)) });
            }
            match running.join_next().await {
                None => break,
                Some(Ok(ended)) => results.push(ended),
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, row)| row).collect()
    }

    /// Runs a scenario on a cluster of its own.
    ///
    /// # Errors
    /// If it cannot run to its end.
    pub async fn run(&self, scenario: Scenario) -> Result<ScenarioResult, FaultsError> {
        eprintln!("running {}", scenario.name());
        let small_disks: &[usize] = if scenario == Scenario::FullDisk { &[0] } else { &[] };
        let mut cluster = Cluster::start(&self.bin, scenario.node_counts(self.nodes), small_disks).await?;
        let ledger = Arc::new(Ledger::new(cluster.outages().clone()));
        if scenario == Scenario::RestartStandins {
            repro::grow_from_one(&mut cluster, &ledger, self.pace).await?;
        }
        let mut problems = proof::misplaced_partitions(&cluster).await?;
        if scenario.has_stock() {
            stock::fill(&cluster, &ledger, self.pace.stock).await?;
        }
        // A change of the members reports percentiles, which need more requests.
        let calm = if scenario.changes_members() { self.pace.calm * 2 } else { self.pace.calm };
        let traffic = Traffic::start(&cluster, &ledger, scenario.workload(self.pace))?;
        let mut scenario_run = ScenarioRun::new(&mut cluster, &traffic, &ledger, self.pace);
        tokio::time::sleep(calm).await;
        scenario_run.run(scenario).await?;
        let healed = Instant::now();
        tokio::time::sleep(calm).await;
        let (done, change) = (scenario_run.done, scenario_run.measured);
        problems.extend(scenario_run.problems);
        traffic.stop().await?;

        let equality = match scenario.is_canary() {
            true => Equality::NotChecked,
            false => proof::equality(&cluster, &self.bin, healed, EXPECTED.equal_within).await?,
        };
        let again = !matches!(equality, Equality::After(_));
        let found = proof::read_back(&cluster, &ledger, again).await?;
        if !scenario.is_canary() {
            problems.extend(proof::misplaced_partitions(&cluster).await?);
        }
        problems.extend(change.iter().flat_map(|change| change.problems.clone()));
        let (counts, died, was_cut) = (ledger.counts(), cluster.died(), scenario.cuts_strong_requests());
        let outcome = Outcome { counts, found, equality, died, problems, was_cut };
        let is_good = scenario.is_canary() || outcome.violations(&EXPECTED).is_empty();
        let kept = (!is_good).then(|| {
            let logs = cluster.nodes().iter().map(|node| (node.name.clone(), node.log_tail())).collect();
            KeptFiles { dir: cluster.keep(), logs }
        });
        Ok(ScenarioResult { done, outcome, change, tails: ledger.tails(), kept })
    }
}
