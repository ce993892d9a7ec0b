//! Faults at random: from a seed a cluster, its settings and a schedule of faults are drawn, played and judged, round after round.

mod perform;
mod schedule;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cartwheel_client::BucketChange;

use crate::FaultsError;
use crate::cluster::{Cast, Cluster};
use crate::judge::{EXPECTED, Outcome};
use crate::ledger::Ledger;
use crate::play::Remains;
use crate::proof;
use crate::registers::{RegisterTraffic, Registers};
use crate::traffic::{CARTS, Traffic, Writing};
pub use schedule::Plan;

use perform::Performance;

/// The nodes that found the cluster, and those that may come.
const CAST: Cast = Cast { founders: schedule::FOUNDERS, comers: schedule::COMERS };
/// Writes before and after each round's faults.
const CALM: Duration = Duration::from_secs(2);
/// How long one node may take over a write.
const WRITE_WITHIN: Duration = Duration::from_secs(3);

/// What came of a seed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Played {
    /// What was done and counted, a line each.
    pub notes: Vec<String>,
    /// What is not as it should be; nothing, if all is well.
    pub complaints: Vec<String>,
    /// If something is to be complained of: where data and logs are left.
    pub remains: Option<Remains>,
}

/// Plays what is drawn from a seed, until something is to be complained of.
///
/// # Errors
/// If it cannot be played to its end. Then data and logs are left as well.
pub async fn play(bin: &Path, plan: &Plan) -> Result<Played, FaultsError> {
    let mut cluster = Cluster::start(bin, CAST, &[schedule::SMALL_DISK]).await?;
    let mut played = Played::default();
    let ended = play_on(bin, plan, &mut cluster, &mut played).await;
    if let Err(error) = &ended {
        played.complaints.push(format!("it cannot go on: {error}"));
    }
    if !played.complaints.is_empty() {
        let logs = cluster.nodes().iter().map(|node| (node.name.clone(), node.log_tail())).collect();
        played.remains = Some(Remains { dir: cluster.keep(), logs });
    }
    Ok(played)
}

async fn play_on(bin: &Path, plan: &Plan, cluster: &mut Cluster, played: &mut Played) -> Result<(), FaultsError> {
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
        let writing = Writing { replicas: None, within: WRITE_WITHIN, strongly_too: false, round: number };
        let traffic = Traffic::start(cluster, &ledger, writing)?;
        let users = RegisterTraffic::start(cluster, &ledger, &registers);
        tokio::time::sleep(CALM).await;
        let mut performance = Performance::new(cluster, &traffic, plan.w);
        let performed = performance.perform(round).await;
        let trouble = std::mem::take(&mut performance.trouble);
        played.notes.push(format!("round {}: {}", number + 1, performance.done.join("; ")));
        performed?;
        let healed = Instant::now();
        tokio::time::sleep(CALM).await;
        traffic.stop().await?;
        users.stop().await?;
        cluster.outages().end_all_excuses();

        let mut outcome = judged(bin, cluster, &ledger, healed).await?;
        outcome.trouble.extend(trouble);
        // Strong requests may be refused where faults overlap. Whether their answers are right is judged below.
        outcome.counts.writes_refused.retain(|kind, _| !kind.starts_with("strong: "));
        let registers = registers.judge(cluster).await?;
        played.notes.push(format!(
            "  {} updates, {} excused, {} silent, {} registers ({} undecided), {:?}",
            outcome.counts.updates - before.updates,
            outcome.counts.excused - before.excused,
            outcome.counts.unreachable - before.unreachable,
            registers.registers,
            registers.undecided,
            outcome.equality
        ));
        before = outcome.counts.clone();
        played.complaints.extend(outcome.complaints(&EXPECTED));
        played.complaints.extend(registers.wrong);
        if !played.complaints.is_empty() {
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
    let trouble = proof::misplaced(cluster).await?;
    Ok(Outcome { counts: ledger.counts(), found, equality, died: cluster.died(), trouble, was_cut: false })
}

/// Plays seeds one after the other, from this one on, until so many are played or the time is over, and says whether all went well.
///
/// # Errors
/// If a cluster cannot be started.
pub async fn play_seeds(
    bin: &Path,
    seed: u64,
    runs: Option<u64>,
    within: Option<Duration>,
) -> Result<bool, FaultsError> {
    let (begun, mut failed, mut played) = (Instant::now(), Vec::new(), 0_u64);
    while runs.is_none_or(|runs| played < runs) && within.is_none_or(|within| begun.elapsed() < within) {
        let seed = seed.wrapping_add(played);
        let plan = Plan::draw(seed);
        println!("seed {seed}: {plan}");
        let result = play(bin, &plan).await?;
        result.notes.iter().for_each(|note| println!("  {note}"));
        if !result.complaints.is_empty() {
            failed.push(seed);
            result.complaints.iter().for_each(|complaint| println!("  FAILED: {complaint}"));
            println!("  the same schedule again: just faults random --seed {seed} --runs 1");
        }
        if let Some(Remains { dir, logs }) = &result.remains {
            println!("  data and logs are in {} until the next run; the logs end with:", dir.display());
            logs.iter().for_each(|(name, tail)| println!("  {name}:\n    {}", tail.replace('\n', "\n    ")));
        }
        played += 1;
    }
    println!("{played} seeds in {} s; failed: {failed:?}", begun.elapsed().as_secs());
    Ok(failed.is_empty())
}
