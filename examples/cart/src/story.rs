//! The whole story: all purchases are replayed, a node dies half-way if it may, and then every cart is read back and judged.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cartwheel_client::Error;

use crate::cart::{Cart, MarkedCart, PlainCart};
use crate::cluster::{Cluster, ClusterError};
use crate::progress::Progress;
use crate::proof::{self, Proof};
use crate::purchases::{Purchase, by_customer};
use crate::replay::{self, Plan, Replayed};

/// What is to be told.
#[derive(Clone, Debug)]
pub struct Story {
    /// The purchases, in the order in which they are made.
    pub purchases: Arc<[Purchase]>,
    /// How many of a hundred are taken out again.
    pub removes_percent: u8,
    /// The names of the buckets begin with this.
    pub bucket: String,
    /// How many write, and then read, at the same time.
    pub writers: usize,
    /// Whether anybody is to see how it goes.
    pub silent: bool,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    /// What the writers met.
    pub replayed: Replayed,
    /// What the carts merged by union hold.
    pub plain: Proof,
    /// What the carts with marks hold.
    pub marked: Proof,
}

/// Why a story has no end.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// The store failed its client.
    #[error(transparent)]
    Store(#[from] Error),
    /// The example's own cluster failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// How many faulty carts are shown.
const FAULTS_SHOWN: usize = 10;

impl Ending {
    /// What is not as it should be, if anything: both kinds must hold every add, and where deletes hold none may come back.
    pub fn verdict(&self) -> Result<(), String> {
        let faults = self.plain.faults.len() + self.marked.faults.len();
        if faults > 0 {
            return Err(format!("{faults} carts are not what they should be"));
        }
        match self.marked.resurfaced {
            0 => Ok(()),
            back => Err(format!("{back} deleted items are back in carts that should not let them")),
        }
    }
}

impl Story {
    /// Tells it on running nodes.
    ///
    /// # Errors
    /// If the nodes cannot serve it.
    pub async fn tell(&self, nodes: &[String]) -> Result<Ending, StoryError> {
        let progress = self.progress("adding", self.purchases.len());
        self.begin(nodes.len());
        let begun = Instant::now();
        let clients = replay::clients(nodes, self.writers, 0)?;
        let replayed = replay::replay(clients, &self.plan(), &progress).await?;
        self.end(nodes, replayed, &progress, begun).await
    }

    /// Tells it on a cluster of which the last node is killed half-way and later started again.
    ///
    /// # Errors
    /// If the nodes cannot serve it.
    pub async fn tell_with_a_death(&self, cluster: &mut Cluster) -> Result<Ending, StoryError> {
        let nodes = cluster.endpoints();
        let progress = self.progress("adding", self.purchases.len());
        self.begin(nodes.len());
        let begun = Instant::now();
        let (clients, plan) = (replay::clients(&nodes, self.writers, 0)?, self.plan());
        let replaying = async { replay::replay(clients, &plan, &progress).await.map_err(StoryError::from) };
        let (replayed, ()) = tokio::try_join!(replaying, self.kill_and_restart(cluster, &progress))?;
        self.end(&nodes, replayed, &progress, begun).await
    }

    async fn kill_and_restart(&self, cluster: &mut Cluster, progress: &Progress) -> Result<(), StoryError> {
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
        progress.say(&format!("started {} again, which serves after {} adds", node.name, progress.done()));
        Ok(())
    }

    async fn end(
        &self,
        nodes: &[String],
        replayed: Replayed,
        progress: &Progress,
        begun: Instant,
    ) -> Result<Ending, StoryError> {
        progress.finish();
        self.say(format_args!(
            "added   {} items to both carts in {:.1} s, {:.0}/s, and took {} out again (each a get and a put); {} changes were tried anew",
            replayed.adds,
            begun.elapsed().as_secs_f64(),
            progress.per_second(),
            replayed.removes,
            replayed.repeated
        ));
        self.say(format_args!(
            "merged  siblings in {} of these gets (answered with 300), at most {} at once",
            replayed.merges, replayed.siblings_max
        ));
        let plan = self.plan();
        let plain = self.prove::<PlainCart>(nodes, &plan.plain, "union").await?;
        let marked = self.prove::<MarkedCart>(nodes, &plan.marked, "marks").await?;
        Ok(Ending { replayed, plain, marked })
    }

    async fn prove<C: Cart>(&self, nodes: &[String], bucket: &str, kind: &'static str) -> Result<Proof, StoryError> {
        // From the next node on, so that hardly a cart is read where it was written.
        let clients = replay::clients(nodes, self.writers, 1)?;
        let progress = self.progress("reading", by_customer(&self.purchases).len());
        let proof = proof::prove::<C>(clients, bucket, &self.purchases, self.removes_percent, &progress).await?;
        progress.finish();
        self.say(format_args!(
            "{kind}   {} carts read with r=2, {:.0}/s, {} of them still siblings",
            proof.carts,
            progress.per_second(),
            proof.unmerged
        ));
        for fault in proof.faults.iter().take(FAULTS_SHOWN) {
            self.say(format_args!(
                "        FAULT customer {}: missing {:?}, surplus {:?}",
                fault.customer, fault.missing, fault.surplus
            ));
        }
        let expected = self.purchases.len() - proof.taken_out;
        let verdict =
            if proof.found == expected && proof.faults.is_empty() { "no add is lost" } else { "NOT all of them" };
        self.say(format_args!("        {} of {expected} adds are there: {verdict}", proof.found));
        self.say(format_args!("        {} of {} deleted items have resurfaced", proof.resurfaced, proof.taken_out));
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
