//! Keys whose homes differed at the first read. Homes are not read at one instant and writes continue, so these keys are read again
//! several times before they count as different.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::Shared;
use super::held::{Held, Verdict, all_changed, compare};
use super::report::{Difference, Tally};

/// The wait before the first re-read. It doubles for each further one, up to [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// The number of keys to read at the same time.
const AT_ONCE: usize = 8;

/// A key whose homes differed.
pub(super) struct Suspect {
    pub(super) storage_key: Vec<u8>,
    /// The storage key, encoded as nodes expect it.
    pub(super) encoded_key: String,
    pub(super) homes: Vec<usize>,
    /// The contents of the homes at the read before the last.
    pub(super) before: Option<Vec<Held>>,
    /// The contents of the homes at the last read.
    pub(super) held: Vec<Held>,
}

/// Reads the keys again until they are equal or the time for re-reads is over.
pub(super) async fn recheck(shared: &Shared, partition: u32, mut suspects: Vec<Suspect>, tally: &mut Tally) {
    let until = Instant::now() + shared.patience();
    let mut wait = WAIT;
    while !suspects.is_empty() && Instant::now() < until {
        tokio::time::sleep_until((Instant::now() + wait).min(until)).await;
        wait = (wait * 2).min(WAIT_MAX);
        let read = stream::iter(suspects).map(|suspect| read_again(shared, partition, suspect));
        let read: Vec<Suspect> = read.buffer_unordered(AT_ONCE).collect().await;
        suspects = read.into_iter().filter(|suspect| still_differs(suspect, tally)).collect();
    }
    suspects.sort_unstable_by(|one, other| one.storage_key.cmp(&other.storage_key));
    for suspect in suspects {
        if suspect.before.as_ref().is_some_and(|before| all_changed(before, &suspect.held)) {
            tally.in_motion += 1;
        } else {
            shared.count_difference();
            tally.differing += 1;
            if tally.differences.len() < shared.list {
                tally.differences.push(difference(shared, partition, suspect));
            }
        }
    }
}

async fn read_again(shared: &Shared, partition: u32, suspect: Suspect) -> Suspect {
    let held = suspect.homes.iter().map(|&home| held_at(shared, home, partition, &suspect.encoded_key));
    let held = join_all(held).await;
    Suspect { before: Some(suspect.held), held, ..suspect }
}

async fn held_at(shared: &Shared, home: usize, partition: u32, encoded_key: &str) -> Held {
    let node = &shared.nodes.all()[home];
    let Some(page) = node.record(partition, encoded_key).await else { return Held::Unreachable };
    match page.records.first() {
        Some(record) if record.storage_key == encoded_key => Held::of(record).unwrap_or(Held::Unreadable),
        None if page.unreadable => Held::Unreadable,
        _ => Held::Absent,
    }
}

fn still_differs(suspect: &Suspect, tally: &mut Tally) -> bool {
    let verdict = compare(&suspect.held);
    tally.unverified += u64::from(verdict == Verdict::Unverified);
    verdict == Verdict::Different
}

fn difference(shared: &Shared, partition: u32, suspect: Suspect) -> Difference {
    let nodes = shared.nodes.all();
    let replicas = suspect.homes.iter().zip(&suspect.held).map(|(&home, &held)| (nodes[home].name.clone(), held));
    Difference::new(&suspect.storage_key, partition, replicas.collect())
}
