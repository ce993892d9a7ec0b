//! A change of the members: its progress, its duration, and the amount of data that it transfers.

use std::time::{Duration, Instant};

use cartwheel_client::MemberChange;

use crate::FaultsError;
use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::meter::{COMPARED, Meter, TRANSFERRED};
use crate::node::Membership;
use crate::timing::Phase;

const CHECK_EVERY: Duration = Duration::from_millis(250);
/// The number of checks in a row that must find no transfer.
const SETTLED_CHECKS: u32 = 3;
/// How long a removed node may take to end once it has handed over everything.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// The measurements of a change of the members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeMeasurement {
    /// From the change to the end of the last transfer; `None` if that did not end in time.
    pub took: Option<Duration>,
    /// The number of replicas copied to nodes that did not hold them.
    pub replicas: usize,
    /// The size of those replicas' records when the change was made.
    pub bytes_min: u64,
    /// The bytes of records that nodes received in bulk transfers meanwhile; `None` if no node counts them.
    pub bytes_transferred: Option<u64>,
    /// The bytes of messages that compared replicas and made them equal meanwhile, ordinary anti-entropy included.
    pub bytes_compared: Option<u64>,
    /// Violations found during the change.
    pub problems: Vec<String>,
}

/// A change that was made.
#[derive(Debug)]
pub(crate) struct Change {
    begun: Instant,
    meter: Meter,
    /// The number of partitions whose homes change.
    planned: usize,
    measured: ChangeMeasurement,
}

/// The progress of a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// The number of partitions in transfer, by the node that knows of most.
    pub(crate) left: usize,
    /// The nodes that have not left yet.
    leaving: Vec<String>,
    /// The nodes that a transfer waits for.
    waits_for: Vec<String>,
    /// Whether all running members have answered, and apply one membership history.
    is_certain: bool,
}

impl Progress {
    fn is_over(&self) -> bool {
        self.is_certain && self.left == 0 && self.leaving.is_empty()
    }
}

impl Change {
    /// Plans and makes a change.
    pub(crate) async fn make(
        cluster: &Cluster,
        ledger: &Ledger,
        changes: &[MemberChange],
    ) -> Result<Self, FaultsError> {
        ledger.enter(Phase::Between);
        let plan = cluster.plan(changes).await?;
        let bytes_min = cluster.bytes_to_copy(&plan.transfers).await?;
        let measured = ChangeMeasurement {
            took: None,
            replicas: plan.replicas,
            bytes_min,
            bytes_transferred: None,
            bytes_compared: None,
            problems: Vec::new(),
        };
        let mut change =
            Self { begun: Instant::now(), meter: Meter::default(), planned: plan.transfers.len(), measured };
        change.check_progress(cluster).await?;
        change.meter.begin();
        ledger.enter(Phase::During);
        change.begun = Instant::now();
        cluster.change(changes, &plan.version).await?;
        Ok(change)
    }

    /// Reads the progress from all nodes.
    pub(crate) async fn check_progress(&mut self, cluster: &Cluster) -> Result<Progress, FaultsError> {
        let mut progress = Progress { left: 0, leaving: Vec::new(), waits_for: Vec::new(), is_certain: true };
        let mut versions = Vec::new();
        for report in cluster.node_reports().await? {
            if let Some(metrics) = &report.metrics {
                self.meter.record(report.node, metrics);
            }
            let is_staying = cluster.nodes()[report.node].membership == Membership::Member;
            let Some(transfers) = report.transfers else {
                progress.is_certain &= !is_staying;
                continue;
            };
            // A node that has left may not know that it has.
            if is_staying {
                progress.left = progress.left.max(transfers.transfers.len());
                progress.leaving.extend(transfers.leaving);
                progress.waits_for.extend(transfers.transfers.into_iter().flat_map(|transfer| transfer.waits_for));
                versions.push(transfers.version);
            }
        }
        versions.dedup();
        progress.is_certain &= versions.len() == 1;
        for names in [&mut progress.leaving, &mut progress.waits_for] {
            names.sort_unstable();
            names.dedup();
        }
        Ok(progress)
    }

    /// Waits until at most `percent` of the partitions are still being transferred, and returns their number.
    pub(crate) async fn until(
        &mut self,
        cluster: &Cluster,
        percent: usize,
        within: Duration,
    ) -> Result<usize, FaultsError> {
        loop {
            let left = self.check_progress(cluster).await?.left;
            // Before that, some nodes may not have learned of the change.
            let is_known = self.begun.elapsed() > CHECK_EVERY;
            let late = self.begun.elapsed() > within;
            if is_known && left == 0 {
                let over = std::io::Error::other("all transfers are done: the scenario needs more data");
                return Err(FaultsError::system("kill a node during the transfers")(over));
            }
            if is_known && left * 100 <= self.planned * percent || late {
                return Ok(left);
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// Waits until all transfers are done and the removed nodes have ended.
    pub(crate) async fn settle(
        mut self,
        cluster: &mut Cluster,
        ledger: &Ledger,
        within: Duration,
    ) -> Result<ChangeMeasurement, FaultsError> {
        let (mut settled, mut over_at) = (0, Instant::now());
        while settled < SETTLED_CHECKS {
            let progress = self.check_progress(cluster).await?;
            if progress.is_over() {
                over_at = if settled == 0 { Instant::now() } else { over_at };
                settled += 1;
            } else if self.begun.elapsed() < within {
                settled = 0;
            } else {
                self.measured.problems.push(format!("transfers not done after {} s: {progress:?}", within.as_secs()));
                break;
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
        self.measured.took = (settled == SETTLED_CHECKS).then(|| over_at - self.begun);
        self.measured.bytes_transferred = self.meter.grown(TRANSFERRED);
        self.measured.bytes_compared = self.meter.grown(COMPARED);
        for node in cluster.nodes_that_are(Membership::Leaving) {
            if !cluster.ended_by_itself(node, ENDS_WITHIN).await {
                let name = &cluster.nodes()[node].name;
                self.measured.problems.push(format!("{name} was removed, and did not exit with success in time"));
            }
            cluster.set_membership(node, Membership::Gone);
        }
        ledger.enter(Phase::After);
        Ok(self.measured)
    }
}
