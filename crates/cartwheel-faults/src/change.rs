//! A change of the members under way: how far it is, how long it takes, and what it moves.

use std::time::{Duration, Instant};

use cartwheel_client::MemberChange;

use crate::FaultsError;
use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::meter::{COMPARED, Meter, TRANSFERRED};
use crate::node::Standing;
use crate::timing::Phase;

/// How often it is looked how far the data is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For so many looks in a row nothing must be left to move.
const LOOKS_SETTLED: u32 = 3;
/// How long a node that has handed over everything may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// What a change of the members took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// From the change to nothing being left to move; none if that did not come to pass in time.
    pub took: Option<Duration>,
    /// How many replicas of partitions came to nodes that did not hold them.
    pub replicas: usize,
    /// The bytes of their records when the change was made.
    pub bytes_min: u64,
    /// The bytes of records that nodes were handed in bulk meanwhile, if nodes count that.
    pub bytes_transferred: Option<u64>,
    /// The bytes of messages that compared replicas and made them equal meanwhile, those of ordinary comparisons among them.
    pub bytes_compared: Option<u64>,
    /// What is not as it should be.
    pub trouble: Vec<String>,
}

/// A change that was made.
#[derive(Debug)]
pub(crate) struct Change {
    begun: Instant,
    meter: Meter,
    /// How many partitions were to get other homes.
    planned: usize,
    measured: Measured,
}

/// How far a change is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// How many partitions are on their way, as the node knows that knows of most.
    pub(crate) left: usize,
    /// Who has not left.
    leaving: Vec<String>,
    /// For whom something waits.
    waits_for: Vec<String>,
    /// Whether all members that run have answered, and go by one history.
    is_certain: bool,
}

impl Progress {
    fn is_over(&self) -> bool {
        self.is_certain && self.left == 0 && self.leaving.is_empty()
    }
}

impl Change {
    /// Makes a change.
    pub(crate) async fn make(
        cluster: &Cluster,
        ledger: &Ledger,
        changes: &[MemberChange],
    ) -> Result<Self, FaultsError> {
        ledger.enter(Phase::Between);
        let plan = cluster.plan(changes).await?;
        let bytes_min = cluster.bytes_that_come(&plan.moves).await?;
        let measured = Measured {
            took: None,
            replicas: plan.replicas,
            bytes_min,
            bytes_transferred: None,
            bytes_compared: None,
            trouble: Vec::new(),
        };
        let mut change = Self { begun: Instant::now(), meter: Meter::default(), planned: plan.moves.len(), measured };
        change.look(cluster).await?;
        change.meter.begin();
        ledger.enter(Phase::During);
        change.begun = Instant::now();
        cluster.change(changes, &plan.version).await?;
        Ok(change)
    }

    /// Looks how far it is.
    pub(crate) async fn look(&mut self, cluster: &Cluster) -> Result<Progress, FaultsError> {
        let mut progress = Progress { left: 0, leaving: Vec::new(), waits_for: Vec::new(), is_certain: true };
        let mut versions = Vec::new();
        for look in cluster.looks().await? {
            if let Some(metrics) = &look.metrics {
                self.meter.look(look.node, metrics);
            }
            let is_staying = cluster.nodes()[look.node].standing == Standing::Member;
            let Some(moves) = look.moves else {
                progress.is_certain &= !is_staying;
                continue;
            };
            // One that has left may not have heard of it.
            if is_staying {
                progress.left = progress.left.max(moves.moves.len());
                progress.leaving.extend(moves.leaving);
                progress.waits_for.extend(moves.moves.into_iter().flat_map(|moved| moved.waits_for));
                versions.push(moves.version);
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

    /// Waits until only so many percent of the partitions are on their way, and says how many that are.
    pub(crate) async fn until(
        &mut self,
        cluster: &Cluster,
        percent: usize,
        within: Duration,
    ) -> Result<usize, FaultsError> {
        loop {
            let left = self.look(cluster).await?.left;
            // Not all may have heard of it.
            let is_known = self.begun.elapsed() > LOOK_EVERY;
            let late = self.begun.elapsed() > within;
            if is_known && left == 0 {
                let over = std::io::Error::other("nothing is on its way any more: there must be more to move");
                return Err(FaultsError::system("make trouble in the middle of the moves")(over));
            }
            if is_known && left * 100 <= self.planned * percent || late {
                return Ok(left);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until everything is where it is wished, and those who were to leave have ended.
    pub(crate) async fn settle(
        mut self,
        cluster: &mut Cluster,
        ledger: &Ledger,
        within: Duration,
    ) -> Result<Measured, FaultsError> {
        let (mut settled, mut over_at) = (0, Instant::now());
        while settled < LOOKS_SETTLED {
            let progress = self.look(cluster).await?;
            if progress.is_over() {
                over_at = if settled == 0 { Instant::now() } else { over_at };
                settled += 1;
            } else if self.begun.elapsed() < within {
                settled = 0;
            } else {
                self.measured.trouble.push(format!("not over after {} s: {progress:?}", within.as_secs()));
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.measured.took = (settled == LOOKS_SETTLED).then(|| over_at - self.begun);
        self.measured.bytes_transferred = self.meter.grown(TRANSFERRED);
        self.measured.bytes_compared = self.meter.grown(COMPARED);
        for node in cluster.all_that_are(Standing::Leaving) {
            if !cluster.ended_by_itself(node, ENDS_WITHIN).await {
                let name = &cluster.nodes()[node].name;
                self.measured.trouble.push(format!("{name} was removed and has not ended in order"));
            }
            cluster.becomes(node, Standing::Gone);
        }
        ledger.enter(Phase::After);
        Ok(self.measured)
    }
}
