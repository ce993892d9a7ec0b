//! Due times of partitions, ordered so that finding what is due does not scan all.

use std::collections::{BTreeMap, BTreeSet};

use crate::ring::PartitionId;
use crate::value::time::Instant;

/// An entry and a due time for each partition in it.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    entries: BTreeMap<PartitionId, (Instant, T)>,
    due: BTreeSet<(Instant, PartitionId)>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), due: BTreeSet::new() }
    }
}

impl<T> Agenda<T> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, partition: PartitionId) -> bool {
        self.entries.contains_key(&partition)
    }

    pub(super) fn get(&self, partition: PartitionId) -> Option<&T> {
        self.entries.get(&partition).map(|(_, entry)| entry)
    }

    pub(super) fn get_mut(&mut self, partition: PartitionId) -> Option<&mut T> {
        self.entries.get_mut(&partition).map(|(_, entry)| entry)
    }

    /// Adds a partition that is due at `at`, or replaces its entry.
    pub(super) fn insert(&mut self, partition: PartitionId, at: Instant, entry: T) {
        self.remove(partition);
        self.entries.insert(partition, (at, entry));
        self.due.insert((at, partition));
    }

    pub(super) fn remove(&mut self, partition: PartitionId) {
        if let Some((at, _)) = self.entries.remove(&partition) {
            self.due.remove(&(at, partition));
        }
    }

    pub(super) fn due_at(&self, partition: PartitionId) -> Option<Instant> {
        self.entries.get(&partition).map(|(at, _)| *at)
    }

    /// Changes when a partition is due, if it is in the agenda.
    pub(super) fn put_off(&mut self, partition: PartitionId, until: Instant) {
        if let Some((at, _)) = self.entries.get_mut(&partition) {
            self.due.remove(&(*at, partition));
            *at = until;
            self.due.insert((until, partition));
        }
    }

    /// The partitions that are due, the longest due first.
    pub(super) fn due(&self, now: Instant) -> Vec<PartitionId> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, partition)| *partition).collect()
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_partitions_come_in_the_order_of_their_times() {
        let mut agenda = Agenda::default();
        let (one, two, three) = (PartitionId(1), PartitionId(2), PartitionId(3));
        agenda.insert(one, Instant(30), "one");
        agenda.insert(two, Instant(10), "two");
        agenda.insert(three, Instant(20), "three");
        assert_eq!((agenda.due(Instant(20)), agenda.next_at()), (vec![two, three], Some(Instant(10))));
        agenda.put_off(two, Instant(40));
        agenda.put_off(PartitionId(9), Instant(0));
        agenda.remove(three);
        assert_eq!((agenda.due(Instant(50)), agenda.due_at(two)), (vec![one, two], Some(Instant(40))));
        agenda.insert(one, Instant(50), "again");
        assert_eq!((agenda.get(one), agenda.len(), agenda.next_at()), (Some(&"again"), 2, Some(Instant(40))));
        assert!(agenda.contains(one) && !agenda.contains(three));
    }
}
