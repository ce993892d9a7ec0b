//! The comparison of one partition on all nodes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cartwheel_client::DigestPage;
use futures_util::future::join_all;

use super::Shared;
use super::held::{Held, Verdict, compare};
use super::report::Tally;
use super::stream::Stream;
use super::suspects::{Suspect, recheck};

/// The number of differing keys to collect before they are re-read.
const SUSPECTS_MAX: usize = 256;

/// Nodes have different histories of membership changes, so they disagree on the homes of keys. Holds the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Disagree(pub(super) String);

/// Compares the records of all nodes in a partition.
///
/// # Errors
/// If the nodes disagree on the homes of the partition. The disagreement is temporary, so the caller can retry.
pub(super) async fn verify(shared: &Shared, partition: u32) -> Result<Tally, Disagree> {
    let nodes = shared.nodes.all();
    let mut streams: Vec<Stream<'_>> = nodes.iter().map(|node| Stream::new(node, partition)).collect();
    let mut ring = AgreedRing::default();
    let (mut tally, mut suspects) = (Tally::default(), Vec::new());
    loop {
        for page in join_all(streams.iter_mut().map(Stream::fill)).await.into_iter().flatten() {
            ring.agree(shared, page)?;
        }
        let Some(storage_key) = streams.iter().filter_map(Stream::front).min().map(<[u8]>::to_vec) else { break };
        let held: Vec<(Held, Option<u8>)> = streams.iter_mut().map(|stream| stream.take(&storage_key)).collect();
        tally.records += held.iter().filter(|(_, n)| n.is_some()).count() as u64;
        let n = held.iter().find_map(|(_, n)| *n).unwrap_or(0);
        let homes: Vec<usize> = ring.walk.iter().copied().take(usize::from(n)).collect();
        let others = (0..held.len()).filter(|at| !homes.contains(at));
        tally.hints += others.filter(|&at| held[at].1.is_some() && held[at].0.has_contents()).count() as u64;
        let held: Vec<Held> = homes.iter().map(|&at| held[at].0).collect();
        if count(&mut tally, &held, shared) {
            let encoded_key = URL_SAFE_NO_PAD.encode(&storage_key);
            suspects.push(Suspect { storage_key, encoded_key, homes, before: None, held });
        }
        if suspects.len() >= SUSPECTS_MAX {
            recheck(shared, partition, std::mem::take(&mut suspects), &mut tally).await;
        }
    }
    recheck(shared, partition, suspects, &mut tally).await;
    tally.under_replicated = ring.is_under_replicated.into();
    Ok(tally)
}

/// Counts a key by the contents of its homes. Returns whether they differ.
fn count(tally: &mut Tally, held: &[Held], shared: &Shared) -> bool {
    if held.iter().any(|held| held.has_contents()) || compare(held) != Verdict::Equal {
        tally.keys += 1;
        shared.count_key();
    }
    match compare(held) {
        Verdict::Equal => false,
        Verdict::Unverified => {
            tally.unverified += 1;
            false
        }
        Verdict::Different => true,
    }
}

/// The ring on which all nodes that have answered agree.
#[derive(Default)]
struct AgreedRing {
    /// The node that reported the ring first, and the ring's version.
    first: Option<(String, String)>,
    /// The partition's preference list, as indexes of nodes. The first n are the homes of a key.
    walk: Vec<usize>,
    /// Whether every page so far showed fewer homes than the target.
    is_under_replicated: bool,
}

impl AgreedRing {
    fn agree(&mut self, shared: &Shared, page: DigestPage) -> Result<(), Disagree> {
        // A node with an outdated configuration of the partition must not raise an alarm, so all nodes must report too few homes.
        self.is_under_replicated = page.homes < page.homes_target && (self.first.is_none() || self.is_under_replicated);
        let Some((node, version)) = &self.first else {
            let position = |name: &String| {
                let unknown = || Disagree(format!("{} has a new member, {name}", page.node));
                shared.nodes.position(name).ok_or_else(unknown)
            };
            self.walk = page.walk.iter().map(position).collect::<Result<_, _>>()?;
            self.first = Some((page.node, page.ring_version));
            return Ok(());
        };
        if *version == page.ring_version {
            return Ok(());
        }
        Err(Disagree(format!("{node} has ring version {version}, and {} has {}", page.node, page.ring_version)))
    }
}
