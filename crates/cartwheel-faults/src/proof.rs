//! The check at the end: whether all replicas are equal, and whether every acknowledged add is in its cart.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cart::cart::{Cart as _, PlainCart, merged};
use cartwheel_client::Client;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::FaultsError;
use crate::cluster::{Cluster, ZONES};
use crate::ledger::{CartName, Carts, Ledger};
use crate::node::Membership;

const BETWEEN_TRIES: Duration = Duration::from_millis(250);
/// How long carts are read again while an add is missing and the replicas are not proven equal.
const READ_AGAIN_FOR: Duration = Duration::from_secs(10);
/// How long reading all carts once may take on a busy machine.
const READ_WITHIN: Duration = Duration::from_secs(300);
/// The number of replicas of each key, each in a zone of its own.
const REPLICAS: usize = 3;
/// The number of carts read at the same time.
const READERS: usize = 8;
/// How much of the output of `verify` is kept.
const OUTPUT_BYTES_MAX: usize = 600;

/// Whether all replicas became equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Equality {
    /// `cartwheel verify` proved it, this long after the healing.
    After(Duration),
    /// It was not proven in time; the last output of `verify`.
    Not(String),
    /// It was not checked.
    NotChecked,
}

/// Runs `BIN verify` in the first zone until it proves that every key is equal on all its replicas, or `within` has passed since `healed`.
///
/// # Errors
/// If it cannot be run.
pub async fn equality(
    cluster: &Cluster,
    bin: &Path,
    healed: Instant,
    within: Duration,
) -> Result<Equality, FaultsError> {
    let mut last = "verify did not end in time".to_owned();
    let mut tries = async || loop {
        // Traffic has ended, so no difference is excused.
        let mut verify = Command::new("ip");
        verify.args(["netns", "exec", &cluster.network().namespace(cluster.clients_of(0))]).arg(bin);
        verify.args(["verify", "--settled", "--json", "--patience", "1"]);
        cluster.nodes().iter().filter(|node| node.membership == Membership::Member).for_each(|node| {
            verify.args(["--node", &node.endpoint()]);
        });
        verify.stdin(Stdio::null()).kill_on_drop(true);
        let output = verify.output().await.map_err(FaultsError::system("run verify"))?;
        if output.status.success() {
            return Ok(healed.elapsed());
        }
        let text = [output.stdout, output.stderr].concat();
        last = String::from_utf8_lossy(&text[..text.len().min(OUTPUT_BYTES_MAX)]).trim().to_owned();
        tokio::time::sleep(BETWEEN_TRIES).await;
    };
    let proven = tokio::time::timeout_at((healed + within).into(), tries()).await;
    match proven {
        Ok(after) => after.map(Equality::After),
        Err(_) => Ok(Equality::Not(last)),
    }
}

/// The content of the carts, compared with what it should be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CartCheck {
    /// The number of carts that were read.
    pub carts: usize,
    /// Acknowledged adds that are not in their cart.
    pub missing: Vec<String>,
    /// Items that no client tried to put into their cart.
    pub invented: Vec<String>,
    /// Carts that could not be read.
    pub unreadable: Vec<String>,
}

impl CartCheck {
    fn add(&mut self, other: Self) {
        self.carts += other.carts;
        self.missing.extend(other.missing);
        self.invented.extend(other.invented);
        self.unreadable.extend(other.unreadable);
    }

    const fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unreadable.is_empty()
    }
}

/// Reads every cart and compares it with the acknowledged adds. With `again`, it repeats that for a few seconds while adds are missing.
///
/// # Errors
/// If no cart can be read.
pub async fn read_back(cluster: &Cluster, ledger: &Arc<Ledger>, again: bool) -> Result<CartCheck, FaultsError> {
    let begun = Instant::now();
    loop {
        // Begin with the last zone's nodes, which most scenarios do not touch.
        let (endpoints, carts) = (cluster.endpoints_for(2, 0), ledger.must_hold());
        let (ledger, total) = (ledger.clone(), carts.len());
        let reading = move || async move {
            let client = Client::new(endpoints)?.without_routing();
            let mut found = CartCheck::default();
            // The time is bounded; carts that were not read in it are reported.
            let all = read_all(&client, &ledger, carts, &mut found);
            if tokio::time::timeout(READ_WITHIN, all).await.is_err() {
                found.unreadable.push(format!("{} carts not read in time", total - found.carts));
            }
            Ok::<_, FaultsError>(found)
        };
        let found = cluster.network().inside(cluster.clients_of(2), reading).await??;
        if found.is_complete() || !again || begun.elapsed() > READ_AGAIN_FOR {
            return Ok(found);
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

async fn read_all(client: &Client, ledger: &Arc<Ledger>, carts: Carts, found: &mut CartCheck) {
    let (mut waiting, mut reading) = (carts.into_iter(), JoinSet::new());
    loop {
        while reading.len() < READERS
            && let Some((cart, must_hold)) = waiting.next()
        {
            let (client, ledger) = (client.clone(), ledger.clone());
            reading.spawn(async move { read_one(&client, &ledger, &cart, &must_hold).await });
        }
        match reading.join_next().await {
            None => return,
            Some(Ok(one)) => found.add(one),
            Some(Err(panicked)) => found.unreadable.push(panicked.to_string()),
        }
    }
}

async fn read_one(client: &Client, ledger: &Ledger, cart: &CartName, must_hold: &BTreeSet<String>) -> CartCheck {
    let (bucket, customer) = cart;
    let mut found = CartCheck { carts: 1, ..CartCheck::default() };
    match client.get(bucket, customer).await {
        Err(error) => found.unreadable.push(format!("customer {customer}: {error}")),
        Ok(read) => {
            let holds = merged::<PlainCart>(&read).items();
            let named = |item: &String| format!("customer {customer} in {bucket}: {item}");
            found.missing.extend(must_hold.difference(&holds).map(named));
            found.invented.extend(holds.iter().filter(|item| !ledger.was_tried(cart, item)).map(named));
        }
    }
    found
}

/// The errors in the placement of the partitions. There must be none when no transfer is under way.
///
/// # Errors
/// If no node answers.
pub async fn misplaced_partitions(cluster: &Cluster) -> Result<Vec<String>, FaultsError> {
    let endpoints: Vec<String> = (0..ZONES).flat_map(|zone| cluster.endpoints_for(zone, 0)).collect();
    let request = move || async move {
        let client = Client::new(endpoints)?;
        Ok::<_, FaultsError>((client.ring().await?, client.transfers().await?))
    };
    let (ring, transfers) = cluster.network().inside(cluster.clients_of(2), request).await??;
    let mut misplaced = Vec::new();
    // A zone may have no node left that holds data.
    let zones_there: BTreeSet<&str> = ring.members.iter().map(|member| member.zone.as_str()).collect();
    for (partition, homes) in ring.homes.iter().enumerate() {
        let zones: BTreeSet<&str> =
            homes.iter().filter_map(|&home| Some(ring.members.get(home)?.zone.as_str())).collect();
        // After a change of n there may be more homes than that.
        if homes.len() < REPLICAS || zones.len() < REPLICAS.min(zones_there.len()) {
            misplaced.push(format!("partition {partition} has {} replicas, in {} zones", homes.len(), zones.len()));
        }
    }
    misplaced.extend(
        transfers.transfers.iter().map(|transfer| format!("partition {} is still in transfer", transfer.partition)),
    );
    misplaced.extend(transfers.leaving.iter().map(|node| format!("{node} has not left")));
    Ok(misplaced)
}
