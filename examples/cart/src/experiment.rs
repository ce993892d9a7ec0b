//! The example: replays all purchases, kills a node half-way if it may, and then compares every cart with the purchases.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cartwheel_client::{Client, Error};

use crate::cart::{Cart, MarkedCart, PlainCart};
use crate::cluster::{Cluster, ClusterError};
use crate::progress::Progress;
use crate::proof::{self, Proof};
use crate::purchases::{Purchase, by_customer};
use crate::replay::{self, Plan, ReplayCounts};

/// The parameters of the example.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// In the order in which they are made.
    pub purchases: Arc<[Purchase]>,
    /// The share of purchases that are removed again.
    pub removes_percent: u8,
    /// The prefix of the buckets' names.
    pub bucket: String,
    /// The number of concurrent writers, and then readers.
    pub writers: usize,
    /// Whether to print nothing.
    pub silent: bool,
}

/// The result of the example.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExperimentResult {
    /// The counts of the replay.
    pub replayed: ReplayCounts,
    /// The carts that are merged by union.
    pub plain: Proof,
    /// The carts with marks.
    pub marked: Proof,
}

/// Why the example failed to run.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// A request of a client failed.
    #[error(transparent)]
    Store(#[from] Error),
    /// The example's own cluster failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// The most carts with differences that are shown.
const MISMATCHES_SHOWN: usize = 10;

impl ExperimentResult {
    /// Checks the result: both kinds of carts must hold every add, and no deleted item may be back in carts with marks.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verdict(&self) -> Result<(), String> {
        let mismatches = self.plain.mismatches.len() + self.marked.mismatches.len();
        if mismatches > 0 {
            return Err(format!("{mismatches} carts differ from the purchases"));
        }
        match self.marked.resurfaced {
            0 => Ok(()),
            back => Err(format!("{back} deleted items are back in carts with marks")),
        }
    }
}

impl Experiment {
    /// Runs on existing nodes.
    ///
    /// # Errors
    /// If a request fails for good.
    pub async fn run(&self, nodes: &[String]) -> Result<ExperimentResult, ExperimentError> {
        let progress = self.progress("adding", self.purchases.len());
        self.begin(nodes.len());
        let begun = Instant::now();
        let clients = replay::clients(nodes, self.writers, 0)?;
        let replayed = replay::replay(clients, &self.plan(), &progress).await?;
        self.end(nodes, replayed, &progress, begun).await
    }

    /// Runs on a cluster whose last node is killed half-way and restarted later.
    ///
    /// # Errors
    /// If a request fails for good, or the node cannot be killed or restarted.
    pub async fn run_with_a_kill(&self, cluster: &mut Cluster) -> Result<ExperimentResult, ExperimentError> {
        let nodes = cluster.endpoints();
        let progress = self.progress("adding", self.purchases.len());
        self.begin(nodes.len());
        let begun = Instant::now();
        let (clients, plan) = (replay::clients(&nodes, self.writers, 0)?, self.plan());
        let replaying = async { replay::replay(clients, &plan, &progress).await.map_err(ExperimentError::from) };
        let (replayed, ()) = tokio::try_join!(replaying, self.kill_and_restart(cluster, &progress))?;
        self.end(&nodes, replayed, &progress, begun).await
    }

    async fn kill_and_restart(&self, cluster: &mut Cluster, progress: &Progress) -> Result<(), ExperimentError> {
        let Some(node) = cluster.nodes().last().cloned() else { return Ok(()) };
        let all = self.purchases.len() as u64;
        reached(progress, all / 2).await;
        cluster.kill(&node)?;
        progress.say(&format!(
            "killed  {} (process {}) with SIGKILL after {} adds",
            node.name,
            node.pid,
            progress.done()
        ));
        reached(progress, all * 3 / 4).await;
        cluster.restart(&node).await?;
        progress.say(&format!("restarted {}, ready after {} adds", node.name, progress.done()));
        Ok(())
    }

    async fn end(
        &self,
        nodes: &[String],
        replayed: ReplayCounts,
        progress: &Progress,
        begun: Instant,
    ) -> Result<ExperimentResult, ExperimentError> {
        progress.finish();
        self.say(format_args!(
            "added   {} items to both carts in {:.1} s, {:.0}/s, and removed {} again (each a get and a put); {} changes were retried",
            replayed.adds,
            begun.elapsed().as_secs_f64(),
            progress.per_second(),
            replayed.removes,
            replayed.retries
        ));
        self.say(format_args!(
            "merged  siblings in {} of these gets (status 300), at most {} at once",
            replayed.merges, replayed.siblings_max
        ));
        let plan = self.plan();
        let plain = self.prove::<PlainCart>(nodes, &plan.plain, "union").await?;
        let marked = self.prove::<MarkedCart>(nodes, &plan.marked, "marks").await?;
        Ok(ExperimentResult { replayed, plain, marked })
    }

    async fn prove<C: Cart>(
        &self,
        nodes: &[String],
        bucket: &str,
        kind: &'static str,
    ) -> Result<Proof, ExperimentError> {
        // Each reads through one node, so that most carts are read through another node than the one that wrote them.
        let clients = replay::clients(nodes, self.writers, 1)?.into_iter().map(Client::without_routing).collect();
        let progress = self.progress("reading", by_customer(&self.purchases).len());
        let proof = proof::prove::<C>(clients, bucket, &self.purchases, self.removes_percent, &progress).await?;
        progress.finish();
        self.say(format_args!(
            "{kind}   {} carts read with r=2, {:.0}/s, {} of them still siblings",
            proof.carts,
            progress.per_second(),
            proof.unmerged
        ));
        for mismatch in proof.mismatches.iter().take(MISMATCHES_SHOWN) {
            self.say(format_args!(
                "        MISMATCH customer {}: missing {:?}, surplus {:?}",
                mismatch.customer, mismatch.missing, mismatch.surplus
            ));
        }
        let expected = self.purchases.len() - proof.removed;
        let verdict =
            if proof.found == expected && proof.mismatches.is_empty() { "no add is lost" } else { "ADDS ARE LOST" };
        self.say(format_args!("        {} of {expected} adds are there: {verdict}", proof.found));
        self.say(format_args!("        {} of {} deleted items have resurfaced", proof.resurfaced, proof.removed));
        Ok(proof)
    }

    fn begin(&self, nodes: usize) {
        self.say(format_args!(
            "{} purchases of {} customers, by {} writers through {nodes} nodes, into the buckets {}-union and -marks",
            self.purchases.len(),
            by_customer(&self.purchases).len(),
            self.writers,
            self.bucket
        ));
    }

    fn plan(&self) -> Plan {
        Plan {
            purchases: self.purchases.clone(),
            removes_percent: self.removes_percent,
            plain: format!("{}-union", self.bucket),
            marked: format!("{}-marks", self.bucket),
        }
    }

    fn progress(&self, what: &'static str, total: usize) -> Arc<Progress> {
        let total = total as u64;
        Arc::new(if self.silent { Progress::hidden(total) } else { Progress::shown(what, total) })
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        if !self.silent {
            println!("{line}");
        }
    }
}

async fn reached(progress: &Progress, count: u64) {
    while progress.done() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
