//! The progress of a load: the position before which all records are stored.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::record::Start;

/// A position in the file before which all records are done, and the number of these records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The position in bytes.
    pub(super) offset: u64,
    /// The line that begins at the position, counted from 1.
    pub(super) line: u64,
    /// Stored records before the position.
    pub(super) stored: u64,
    /// Skipped bad records before the position.
    pub(super) skipped: u64,
}

impl Checkpoint {
    /// The position before the first record.
    pub(super) fn before(start: Start) -> Self {
        Self { offset: start.offset, line: start.line, stored: 0, skipped: 0 }
    }

    pub(super) fn start(self) -> Start {
        Start { offset: self.offset, line: self.line }
    }
}

/// A record in progress: its index among all records of this run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RecordIndex(u64);

/// Tracks which records are done. Records finish in any order; the checkpoint is before the first unfinished one.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    checkpoint: Checkpoint,
    /// The index of the first record in `under_way`.
    first: u64,
    under_way: VecDeque<UnderWay>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct UnderWay {
    end: Start,
    outcome: Option<RecordOutcome>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RecordOutcome {
    Stored,
    Skipped,
}

impl Progress {
    pub(super) fn from(checkpoint: Checkpoint) -> Self {
        Self { checkpoint, first: 0, under_way: VecDeque::new() }
    }

    /// The position before which all records are done.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Adds the next record of the file, which ends at `end`.
    pub(super) fn begin(&mut self, end: Start) -> RecordIndex {
        self.under_way.push_back(UnderWay { end, outcome: None });
        RecordIndex(self.first + self.under_way.len() as u64 - 1)
    }

    /// Marks a record as done.
    pub(super) fn end(&mut self, index: RecordIndex, outcome: RecordOutcome) {
        let at = index.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(record) = at.and_then(|at| self.under_way.get_mut(at)) {
            record.outcome = Some(outcome);
        }
        while let Some(UnderWay { end: Start { offset, line }, outcome: Some(outcome) }) =
            self.under_way.front().copied()
        {
            let Checkpoint { stored, skipped, .. } = self.checkpoint;
            let (stored, skipped) = (
                stored + u64::from(outcome == RecordOutcome::Stored),
                skipped + u64::from(outcome == RecordOutcome::Skipped),
            );
            self.checkpoint = Checkpoint { offset, line, stored, skipped };
            self.under_way.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(number: u64) -> Start {
        Start { offset: (number + 1) * 10, line: number + 2 }
    }

    #[test]
    fn the_checkpoint_stays_before_a_record_that_is_not_done() {
        let mut progress = Progress::from(Checkpoint::before(Start::FILE));
        let indexes: Vec<_> = (0..3).map(|number| progress.begin(end(number))).collect();
        progress.end(indexes[2], RecordOutcome::Stored);
        progress.end(indexes[1], RecordOutcome::Skipped);
        assert_eq!(progress.checkpoint(), Checkpoint { offset: 0, line: 1, stored: 0, skipped: 0 });
        progress.end(indexes[0], RecordOutcome::Stored);
        assert_eq!(progress.checkpoint(), Checkpoint { offset: 30, line: 4, stored: 2, skipped: 1 });
    }

    proptest! {
        #[test]
        fn the_checkpoint_is_before_the_first_unfinished_record(
            order in Just((0..20_u64).collect::<Vec<_>>()).prop_shuffle(), count in 0..20_usize,
        ) {
            let mut progress = Progress::from(Checkpoint::before(Start::FILE));
            let indexes: Vec<_> = (0..20).map(|number| progress.begin(end(number))).collect();
            for &number in &order[..count] {
                progress.end(indexes[number as usize], RecordOutcome::Stored);
            }
            let first = (0..20).find(|number| !order[..count].contains(number)).unwrap_or(20);
            prop_assert_eq!(progress.checkpoint().stored, first);
            prop_assert_eq!(progress.checkpoint().offset, first * 10);
        }
    }
}
