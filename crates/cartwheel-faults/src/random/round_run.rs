//! Runs one round: begins and ends each fault at its time, then heals the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cartwheel_client::{BucketChange, MemberChange};

use super::schedule::{Fault, SMALL_DISK, ScheduledFault};
use crate::FaultsError;
use crate::cluster::Cluster;
use crate::disk::SmallDisk;
use crate::node::Membership;
use crate::outages::Cause;
use crate::scenario_run::start_joiners;
use crate::traffic::{CARTS, Traffic};

/// How long all transfers may take.
const SETTLES_WITHIN: Duration = Duration::from_secs(120);
/// How long a node may refuse writes after its clock was set right.
const CLOCK_FORGOTTEN_AFTER: Duration = Duration::from_secs(22);
/// How long it may take until all clocks of a common jump have jumped.
const CLOCKS_JUMP_WITHIN: Duration = Duration::from_secs(1);
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// The number of checks in a row that must find no transfer.
const SETTLED_CHECKS: u32 = 3;
/// One bit is flipped in each block of this many bytes of a table.
const DAMAGE_EVERY: usize = 40_000;

/// A running round.
pub(crate) struct RoundRun<'a> {
    cluster: &'a mut Cluster,
    traffic: &'a Traffic,
    w: u8,
    /// The faults so far, in order.
    pub(crate) done: Vec<String>,
    /// Violations found during the round.
    pub(crate) problems: Vec<String>,
    copies: BTreeMap<usize, PathBuf>,
    paused: BTreeSet<usize>,
    /// Nodes that may exit with an error, because their disk was changed.
    may_end: BTreeSet<usize>,
    /// Nodes that were started and are not known to be ready.
    starting: BTreeSet<usize>,
    clock_right_at: Option<Instant>,
}

impl<'a> RoundRun<'a> {
    pub(crate) fn new(cluster: &'a mut Cluster, traffic: &'a Traffic, w: u8) -> Self {
        Self {
            cluster,
            traffic,
            w,
            done: Vec::new(),
            problems: Vec::new(),
            copies: BTreeMap::new(),
            paused: BTreeSet::new(),
            may_end: BTreeSet::new(),
            starting: BTreeSet::new(),
            clock_right_at: None,
        }
    }

    /// Runs a round, up to the healing.
    pub(crate) async fn run(&mut self, schedule: &[ScheduledFault]) -> Result<(), FaultsError> {
        let moments = |scheduled: &ScheduledFault| {
            [(scheduled.begin, false, scheduled.fault), (scheduled.end, true, scheduled.fault)]
        };
        let mut moments: Vec<(Duration, bool, Fault)> = schedule.iter().flat_map(moments).collect();
        moments.sort_by_key(|&(moment, is_end, _)| (moment, is_end));
        let begun = Instant::now();
        for (moment, is_end, fault) in moments {
            tokio::time::sleep_until((begun + moment).into()).await;
            let what = if is_end { "end of " } else { "" };
            self.done.push(format!("{:.1} s: {what}{fault}", begun.elapsed().as_secs_f64()));
            if is_end { self.end(fault).await? } else { self.begin(fault).await? }
        }
        self.heal().await
    }

    async fn begin(&mut self, fault: Fault) -> Result<(), FaultsError> {
        match fault {
            Fault::Kill(node) => self.cluster.kill(node).await,
            Fault::Stop(node) => self.cluster.stop(node).await,
            Fault::Pause(node) => {
                self.paused.insert(node);
                // It answers requests from before the pause after it, when the clients have timed out.
                self.excuse(node);
                self.cluster.pause(node)
            }
            Fault::CutZone(zone) => self.cluster.cut_off(zone),
            Fault::CutOneWay(node, other) => self.cluster.cut_link(node, other),
            Fault::FillDisk => self.cluster.small_disk(SMALL_DISK).map_or(Ok(()), SmallDisk::fill),
            Fault::Wipe(node) => self.cluster.wipe(node).await,
            Fault::HotCopy(node) => {
                let copy = self.cluster.copy_while_running(node).await?;
                self.copies.insert(node, copy);
                Ok(())
            }
            Fault::Damage(node) => {
                self.cluster.kill(node).await?;
                let blocks = damage(&self.cluster.nodes()[node].dir)?;
                self.done.push(format!("{blocks} blocks damaged"));
                self.may_end.insert(node);
                self.start(node)
            }
            Fault::Clock(node, ms) => {
                self.excuse(node);
                self.cluster.shift_clock(node, ms)
            }
            Fault::AllClocks(ms) => self.shift_all(ms).await,
            Fault::Weight(node, weight) => {
                let change = MemberChange::Weight { node: self.name(node), weight };
                self.change(&[change]).await
            }
            Fault::Replicas(n) => {
                let change = BucketChange { n: Some(n.max(self.w)), ..BucketChange::default() };
                let through = self.running();
                if let Err(error) = self.cluster.set_bucket(through, CARTS, change).await? {
                    self.done.push(format!("refused: {error}"));
                }
                Ok(())
            }
            Fault::Replace(node, joiner) => {
                self.cluster.kill(node).await?;
                self.cluster.set_membership(node, Membership::Gone);
                self.admit(joiner, MemberChange::Replace { node: self.name(node), with: self.name(joiner) }).await
            }
            Fault::Add(joiner) => self.admit(joiner, MemberChange::Add { node: self.name(joiner), weight: None }).await,
        }
    }

    async fn end(&mut self, fault: Fault) -> Result<(), FaultsError> {
        match fault {
            Fault::Kill(node) | Fault::Stop(node) => self.start(node),
            Fault::Pause(node) => {
                self.paused.remove(&node);
                self.cluster.resume(node)?;
                self.cluster.outages().end_excuse(Some(&self.cluster.nodes()[node].endpoint()));
                Ok(())
            }
            Fault::CutZone(_) | Fault::CutOneWay(..) => self.cluster.heal_network(),
            Fault::FillDisk => self.cluster.small_disk(SMALL_DISK).map_or(Ok(()), SmallDisk::free),
            Fault::Wipe(node) => self.renew(node),
            Fault::HotCopy(node) => {
                self.cluster.kill(node).await?;
                if let Some(copy) = self.copies.remove(&node) {
                    self.cluster.restore(node, &copy)?;
                }
                // Until it notices that its data is old, it may serve, and refuse requests.
                self.excuse(node);
                self.may_end.insert(node);
                self.start(node)
            }
            Fault::Damage(node) => {
                self.cluster.wipe(node).await?;
                self.may_end.remove(&node);
                self.renew(node)
            }
            Fault::Clock(node, _) => {
                self.clock_right_at = Some(Instant::now() + CLOCK_FORGOTTEN_AFTER);
                self.cluster.shift_clock(node, 0)
            }
            Fault::AllClocks(_) => self.shift_all(0).await,
            Fault::Weight(..) | Fault::Replicas(_) | Fault::Replace(..) | Fault::Add(_) => Ok(()),
        }
    }

    /// Shifts all clocks. They do not jump at the same moment: the first to jump is off from the others until it hears from them.
    async fn shift_all(&self, ms: i64) -> Result<(), FaultsError> {
        let outages = self.cluster.outages();
        outages.excuse(None);
        (0..self.cluster.nodes().len()).try_for_each(|node| self.cluster.shift_clock(node, ms))?;
        tokio::time::sleep(CLOCKS_JUMP_WITHIN).await;
        outages.end_excuse(None);
        Ok(())
    }

    /// Excuses refusals of a node from now on.
    fn excuse(&self, node: usize) {
        self.cluster.outages().excuse(Some(&self.cluster.nodes()[node].endpoint()));
    }

    /// Starts a node without waiting for it; until it is ready it need not answer.
    fn start(&mut self, node: usize) -> Result<(), FaultsError> {
        self.starting.insert(node);
        self.cluster.start_again(node)
    }

    fn renew(&mut self, node: usize) -> Result<(), FaultsError> {
        self.cluster.renew(node)?;
        self.start(node)
    }

    async fn admit(&mut self, joiner: usize, change: MemberChange) -> Result<(), FaultsError> {
        self.traffic.redirect(self.cluster);
        start_joiners(self.cluster, &[joiner]).await?;
        self.change(&[change]).await?;
        self.cluster.set_membership(joiner, Membership::Member);
        self.cluster.begin_outage(joiner);
        self.starting.insert(joiner);
        Ok(())
    }

    /// Makes a change of the members. It plans again if the node that makes the change knew a newer membership history than the one that planned
    /// it.
    async fn change(&mut self, changes: &[MemberChange]) -> Result<(), FaultsError> {
        let mut last = Ok(());
        for _ in 0..20 {
            last = match self.cluster.plan(changes).await {
                Ok(plan) => self.cluster.change(changes, &plan.version).await,
                Err(error) => Err(error),
            };
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
        last
    }

    /// Ends all faults, and waits until the cluster has recovered.
    async fn heal(&mut self) -> Result<(), FaultsError> {
        self.cluster.heal_network()?;
        if let Some(right_at) = self.clock_right_at {
            tokio::time::sleep_until(right_at.into()).await;
        }
        let starting = std::mem::take(&mut self.starting);
        for node in starting {
            if let Err(error) = self.cluster.ready(node).await {
                if !self.may_end.contains(&node) || !self.cluster.has_died(node) {
                    return Err(error);
                }
                self.done.push(format!("{} refuses to start on its copy, so it is renewed", self.name(node)));
                self.cluster.wipe(node).await?;
                self.cluster.renew(node)?;
                self.cluster.start_again(node)?;
                self.cluster.ready(node).await?;
            }
            let endpoint = self.cluster.nodes()[node].endpoint();
            self.cluster.outages().end(&endpoint, Cause::Process);
        }
        self.traffic.redirect(self.cluster);
        self.settle().await
    }

    /// Waits until no member knows of a transfer.
    async fn settle(&mut self) -> Result<(), FaultsError> {
        let (begun, mut settled) = (Instant::now(), 0);
        while settled < SETTLED_CHECKS {
            let reports = self.cluster.node_reports().await?;
            let is_over = reports.iter().all(|report| {
                report.transfers.as_ref().is_some_and(|report| report.transfers.is_empty() && report.leaving.is_empty())
            });
            settled = if is_over { settled + 1 } else { 0 };
            if begun.elapsed() > SETTLES_WITHIN {
                let left = reports.iter().filter_map(|report| Some(report.transfers.as_ref()?.transfers.len())).max();
                self.problems.push(format!(
                    "{} partitions are still in transfer {} s after the healing",
                    left.unwrap_or_default(),
                    SETTLES_WITHIN.as_secs()
                ));
                break;
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
        Ok(())
    }

    /// A running member that can answer.
    fn running(&self) -> usize {
        let nodes = self.cluster.nodes().iter().enumerate();
        let mut running = nodes.filter(|(at, node)| {
            node.is_serving() && node.pid().is_some() && !self.paused.contains(at) && !self.starting.contains(at)
        });
        running.next_back().map_or(0, |(at, _)| at)
    }

    fn name(&self, node: usize) -> String {
        self.cluster.nodes()[node].name.clone()
    }
}

/// Flips bits in the tables of a data directory and returns their number. Journals stay intact: a node cannot detect what a damaged journal lost.
fn damage(dir: &Path) -> Result<usize, FaultsError> {
    let failed = || FaultsError::system(format!("damage {}", dir.display()));
    let mut damaged = 0;
    for path in tables(dir).map_err(failed())? {
        let mut content = fs::read(&path).map_err(failed())?;
        let mut at = DAMAGE_EVERY / 2;
        while let Some(byte) = content.get_mut(at) {
            *byte ^= 4;
            damaged += 1;
            at += DAMAGE_EVERY;
        }
        fs::write(&path, content).map_err(failed())?;
    }
    Ok(damaged)
}

/// The files under `dir` that hold tables or large values.
fn tables(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut tables = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            tables.extend(self::tables(&path)?);
        } else if path.parent().and_then(Path::file_name).is_some_and(|dir| dir == "tables" || dir == "blobs") {
            tables.push(path);
        }
    }
    Ok(tables)
}
