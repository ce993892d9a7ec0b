//! What is there in the end: whether all replicas are equal, and whether every acknowledged add is in its cart.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cart::cart::{Cart as _, PlainCart, merged};
use cartwheel_client::Client;
use tokio::process::Command;

use crate::FaultsError;
use crate::cluster::Cluster;
use crate::ledger::{Carts, Ledger};
use crate::traffic::BUCKET;

const BETWEEN_TRIES: Duration = Duration::from_millis(250);
/// How long the carts are read again while an add is missing, if nothing has said that the replicas are equal.
const READ_AGAIN_FOR: Duration = Duration::from_secs(10);
/// How long all carts may take to be read once.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How much of what `verify` said is kept.
const SAID_BYTES_MAX: usize = 600;

/// Whether all replicas became equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Equality {
    /// `cartwheel verify` proved it, so long after the healing.
    After(Duration),
    /// It did not in the time it had; what it said last.
    Not(String),
    /// It was not asked for.
    NotAsked,
}

/// Runs `BIN verify` in the first zone until it proves that every key is equal on all its replicas, or `within` has passed since
/// `healed`.
///
/// # Errors
/// If it cannot be run.
pub async fn equality(
    cluster: &Cluster,
    bin: &Path,
    healed: Instant,
    within: Duration,
) -> Result<Equality, FaultsError> {
    let mut said = "it did not end in time".to_owned();
    let mut tries = async || loop {
        // Traffic has ended, so nothing excuses a difference.
        let mut verify = Command::new("ip");
        verify.args(["netns", "exec", &cluster.network().namespace(cluster.clients_of(0))]).arg(bin);
        verify.args(["verify", "--settled", "--json", "--patience", "1"]);
        cluster.nodes().iter().for_each(|node| {
            verify.args(["--node", &node.endpoint()]);
        });
        verify.stdin(Stdio::null()).kill_on_drop(true);
        let output = verify.output().await.map_err(FaultsError::system("run verify"))?;
        if output.status.success() {
            return Ok(healed.elapsed());
        }
        let whole = [output.stdout, output.stderr].concat();
        said = String::from_utf8_lossy(&whole[..whole.len().min(SAID_BYTES_MAX)]).trim().to_owned();
        tokio::time::sleep(BETWEEN_TRIES).await;
    };
    let proven = tokio::time::timeout_at((healed + within).into(), tries()).await;
    match proven {
        Ok(after) => after.map(Equality::After),
        Err(_) => Ok(Equality::Not(said)),
    }
}

/// What the carts hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Carts that were read.
    pub carts: usize,
    /// Adds that were acknowledged and are not there.
    pub missing: Vec<String>,
    /// Items that nobody ever tried to put there.
    pub invented: Vec<String>,
    /// Carts that could not be read.
    pub unreadable: Vec<String>,
}

impl Found {
    const fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.unreadable.is_empty()
    }
}

/// Reads every cart back and compares it with what was acknowledged. If `again`, what is missing is given a few seconds.
///
/// # Errors
/// If the carts cannot be read at all.
pub async fn read_back(cluster: &Cluster, ledger: &Arc<Ledger>, again: bool) -> Result<Found, FaultsError> {
    let begun = Instant::now();
    loop {
        // Beginning with the last zone's nodes: those that most scenarios leave alone.
        let (endpoints, carts) = (cluster.endpoints_for(2, 0), ledger.must_hold());
        let (ledger, total) = (ledger.clone(), carts.len());
        let reading = move || async move {
            let client = Client::new(endpoints)?;
            let mut found = Found::default();
            // Whatever happens, it ends, and says what it has not read.
            let all = read_all(&client, &ledger, carts, &mut found);
            if tokio::time::timeout(READ_WITHIN, all).await.is_err() {
                found.unreadable.push(format!("{} carts, for which there was no time", total - found.carts));
            }
            Ok::<_, FaultsError>(found)
        };
        let found = cluster.network().inside(cluster.clients_of(2), reading).await??;
        if found.is_whole() || !again || begun.elapsed() > READ_AGAIN_FOR {
            return Ok(found);
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

async fn read_all(client: &Client, ledger: &Ledger, carts: Carts, found: &mut Found) {
    for (customer, must_hold) in carts {
        found.carts += 1;
        let read = match client.get(BUCKET, &customer).await {
            Ok(read) => read,
            Err(error) => {
                found.unreadable.push(format!("customer {customer}: {error}"));
                continue;
            }
        };
        let holds = merged::<PlainCart>(&read).items();
        found.missing.extend(must_hold.difference(&holds).map(|item| format!("customer {customer}: {item}")));
        let invented = holds.iter().filter(|item| !ledger.was_tried(&customer, item));
        found.invented.extend(invented.map(|item| format!("customer {customer}: {item}")));
    }
}
