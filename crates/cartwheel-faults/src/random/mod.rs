//! Random faults: draws a cluster's settings and a schedule of faults from a seed, runs them, and checks the result, round after round.

mod round_run;
mod schedule;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cartwheel_client::BucketChange;

use crate::FaultsError;
use crate::cluster::{Cluster, NodeCounts};
use crate::judge::{EXPECTED, Outcome};
use crate::ledger::Ledger;
use crate::proof;
use crate::registers::{RegisterTraffic, Registers};
use crate::runner::KeptFiles;
use crate::traffic::{CARTS, Traffic, Workload};
pub use schedule::Plan;

use round_run::RoundRun;

/// The nodes that bootstrap the cluster, and those that may join.
const NODES: NodeCounts = NodeCounts { initial: schedule::INITIAL, joiners: schedule::JOINERS };
/// The time of undisturbed writes before and after each round's faults.
const CALM: Duration = Duration::from_secs(2);
/// How long one node may take for a write.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// The result of a seed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SeedResult {
    /// The faults and the counts, one line each.
    pub notes: Vec<String>,
    /// The violations; empty if there are none.
    pub violations: Vec<String>,
    /// The kept data and logs, if there are violations.
    pub kept: Option<KeptFiles>,
}

/// Runs the plan of a seed, up to the first round with violations.
///
/// # Errors
/// If the cluster cannot be started. A later error is reported as a violation, so that data and logs are kept.
pub async fn run(bin: &Path, plan: &Plan) -> Result<SeedResult, FaultsError> {
    let mut cluster = Cluster::start(bin, NODES, &[schedule::SMALL_DISK]).await?;
    let mut result = SeedResult::default();
    let ended = run_rounds(bin, plan, &mut cluster, &mut result).await;
    if let Err(error) = &ended {
        result.violations.push(format!("the run stopped: {error}"));
    }
    if !result.violations.is_empty() {
        let logs = cluster.nodes().iter().map(|node| (node.name.clone(), node.log_tail())).collect();
        result.kept = Some(KeptFiles { dir: cluster.keep(), logs });
    }
    Ok(result)
}

async fn run_rounds(
    bin: &Path,
    plan: &Plan,
    cluster: &mut Cluster,
    result: &mut SeedResult,
) -> Result<(), FaultsError> {
    let ledger = Arc::new(Ledger::new(cluster.outages().clone()));
    let registers = Arc::new(Registers::default());
    Registers::make_buckets(cluster).await?;
    for bucket in [CARTS, crate::registers::LAST, crate::registers::STRONG] {
        let w = if bucket == CARTS { plan.w } else { plan.w.max(2) };
        let durability = Some(plan.durability.to_owned());
        let change = BucketChange { w: Some(w), durability, ..BucketChange::default() };
        cluster.set_bucket(0, bucket, change).await??;
    }
    let mut before = ledger.counts();
    for (number, round) in plan.rounds.iter().enumerate() {
        let workload = Workload { replicas: None, within: WRITE_WITHIN, with_strong: false, round: number };
        let traffic = Traffic::start(cluster, &ledger, workload)?;
        let users = RegisterTraffic::start(cluster, &ledger, &registers);
        tokio::time::sleep(CALM).await;
        let mut round_run = RoundRun::new(cluster, &traffic, plan.w);
        let ended = round_run.run(round).await;
        let problems = std::mem::take(&mut round_run.problems);
        result.notes.push(format!("round {}: {}", number + 1, round_run.done.join("; ")));
        ended?;
        let healed = Instant::now();
        tokio::time::sleep(CALM).await;
        traffic.stop().await?;
        users.stop().await?;
        cluster.outages().end_all_excuses();

        let mut outcome = judged(bin, cluster, &ledger, healed).await?;
        outcome.problems.extend(problems);
        // Where faults overlap, strong requests may be refused. The registers check that their results are correct.
        outcome.counts.writes_refused.retain(|kind, _| !kind.starts_with("strong: "));
        let registers = registers.judge(cluster).await?;
        result.notes.push(format!(
            "  {} updates, {} excused, {} unreachable, {} registers ({} undecided), {:?}",
            outcome.counts.updates - before.updates,
            outcome.counts.excused - before.excused,
            outcome.counts.unreachable - before.unreachable,
            registers.registers,
            registers.undecided,
            outcome.equality
        ));
        before = outcome.counts.clone();
        result.violations.extend(outcome.violations(&EXPECTED));
        result.violations.extend(registers.wrong);
        if !result.violations.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn judged(
    bin: &Path,
    cluster: &mut Cluster,
    ledger: &Arc<Ledger>,
    healed: Instant,
) -> Result<Outcome, FaultsError> {
    let equality = proof::equality(cluster, bin, healed, EXPECTED.equal_within).await?;
    let found = proof::read_back(cluster, ledger, true).await?;
    let problems = proof::misplaced_partitions(cluster).await?;
    Ok(Outcome { counts: ledger.counts(), found, equality, died: cluster.died(), problems, was_cut: false })
}

/// Runs seeds in order, beginning with `seed`, until `runs` have run or `within` has passed. Returns whether none had violations.
///
/// # Errors
/// If a cluster cannot be started.
pub async fn run_seeds(
    bin: &Path,
    seed: u64,
    runs: Option<u64>,
    within: Option<Duration>,
) -> Result<bool, FaultsError> {
    let (begun, mut failed, mut done) = (Instant::now(), Vec::new(), 0_u64);
    while runs.is_none_or(|runs| done < runs) && within.is_none_or(|within| begun.elapsed() < within) {
        let seed = seed.wrapping_add(done);
        let plan = Plan::draw(seed);
        println!("seed {seed}: {plan}");
        let result = run(bin, &plan).await?;
        result.notes.iter().for_each(|note| println!("  {note}"));
        if !result.violations.is_empty() {
            failed.push(seed);
            result.violations.iter().for_each(|violation| println!("  FAILED: {violation}"));
            println!("  to repeat this schedule: just faults random --seed {seed} --runs 1");
        }
        if let Some(KeptFiles { dir, logs }) = &result.kept {
            println!("  data and logs are in {} until the next run; the logs end with:", dir.display());
            logs.iter().for_each(|(name, tail)| println!("  {name}:\n    {}", tail.replace('\n', "\n    ")));
        }
        done += 1;
    }
    println!("{done} seeds in {} s; failed: {failed:?}", begun.elapsed().as_secs());
    Ok(failed.is_empty())
}
