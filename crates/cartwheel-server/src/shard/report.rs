//! What a shard tells of itself when a problem is looked into: its queues, how long its turns take, and which partitions are slow.

use std::time::Duration;

use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::value::time::Instant;
use cartwheel_core::value::token::Token;

/// How long times are gathered before they go to the past. A report is about the present and the latest past period.
const PERIOD: Duration = Duration::from_secs(10);

/// A shard's state at one time.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Inputs that a turn has left for the next one.
    pub inputs_left: usize,
    /// Inputs with large values that wait for a turn of their own, and reads of large records.
    pub large_inputs: usize,
    /// Reads of large records.
    pub large_reads: usize,
    /// Clients' requests that have no answer yet.
    pub requests: usize,
    /// How long the oldest of them has been here.
    pub oldest_request: Duration,
    /// Commits that wait for the one under way.
    pub commits_waiting: usize,
    /// For how long a commit is under way, if one is.
    pub commit_for: Option<Duration>,
    /// Spans of traces that are open.
    pub open_spans: usize,
    /// How long turns took in the last 10 to 20 seconds.
    pub turns: Times,
    /// How long requests took in the last 10 to 20 seconds, by partition. Reads that were answered from memory are not among them.
    pub partitions: Vec<(PartitionId, Times)>,
}

/// How long something took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// How often it was done.
    pub count: u64,
    /// How long all of it took.
    pub total: Duration,
    /// How long the longest took.
    pub longest: Duration,
}

impl Times {
    fn add(&mut self, took: Duration) {
        self.merge(&Self { count: 1, total: took, longest: took });
    }

    fn merge(&mut self, others: &Self) {
        self.count += others.count;
        self.total += others.total;
        self.longest = self.longest.max(others.longest);
    }

    /// How long it took on average.
    pub fn mean(&self) -> Duration {
        self.total.checked_div(u32::try_from(self.count).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

/// The times of turns and requests of the present period and the one before.
#[derive(Debug, Default)]
pub(super) struct LoadBook {
    partitions: Option<Partitions>,
    present: Period,
    past: Period,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Period {
    turns: Times,
    /// By the partition's number; shorter while the later ones had none.
    requests: Vec<Times>,
}

impl LoadBook {
    /// Times of requests in a ring of these partitions; of none without.
    pub(super) fn new(partitions: Option<Partitions>) -> Self {
        Self { partitions, ..Self::default() }
    }

    /// The partition of a token.
    pub(super) fn partition_of(&self, token: Token) -> PartitionId {
        self.partitions.map_or(PartitionId(0), |partitions| partitions.of(token))
    }

    pub(super) fn turned(&mut self, now: Instant, took: Duration) {
        if now.since(self.begun) >= PERIOD {
            let is_recent = now.since(self.begun) < 2 * PERIOD;
            let ended = std::mem::take(&mut self.present);
            self.past = if is_recent { ended } else { Period::default() };
            self.begun = now;
        }
        self.present.turns.add(took);
    }

    pub(super) fn requested(&mut self, partition: PartitionId, took: Duration) {
        let requests = &mut self.present.requests;
        if requests.len() <= partition.index() {
            requests.resize(partition.index() + 1, Times::default());
        }
        requests[partition.index()].add(took);
    }

    pub(super) fn turns(&self) -> Times {
        let mut turns = self.present.turns;
        turns.merge(&self.past.turns);
        turns
    }

    /// The partitions with requests, in their order.
    pub(super) fn partitions(&self) -> Vec<(PartitionId, Times)> {
        let len = self.present.requests.len().max(self.past.requests.len());
        let of = |index: usize| {
            let mut times = Times::default();
            for period in [&self.present, &self.past] {
                times.merge(&period.requests.get(index).copied().unwrap_or_default());
            }
            (PartitionId(index as u32), times)
        };
        (0..len).map(of).filter(|(_, times)| times.count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_present_and_the_latest_past_period() {
        let (mut book, ms) = (LoadBook::default(), Duration::from_millis);
        let at = |seconds: u64| Instant(seconds * 1_000_000);
        book.turned(at(100), ms(1));
        book.requested(PartitionId(3), ms(4));
        book.turned(at(109), ms(3));
        book.turned(at(111), ms(8));
        book.requested(PartitionId(3), ms(2));
        book.requested(PartitionId(1), ms(7));
        let turns = book.turns();
        assert_eq!((turns.count, turns.mean(), turns.longest), (3, ms(4), ms(8)));
        let once = |took| Times { count: 1, total: took, longest: took };
        let twice = Times { count: 2, total: ms(6), longest: ms(4) };
        assert_eq!(book.partitions(), [(PartitionId(1), once(ms(7))), (PartitionId(3), twice)]);
        book.turned(at(122), ms(5));
        assert_eq!(book.turns().count, 2, "the first period is over");
        book.turned(at(200), ms(5));
        assert_eq!((book.turns(), book.partitions()), (once(ms(5)), vec![]), "so are the others");
    }
}
