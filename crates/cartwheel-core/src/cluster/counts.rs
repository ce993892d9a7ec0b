//! The number of home replicas of keys by bucket, as a partition's configuration defines it.
//!
//! The settings of a bucket ([`crate::cluster::membership::View`]) define the *target* n. The n *in force* in a partition is part of its
//! configuration ([`crate::cluster::configuration`]). So two coordinators never use two different n: each follows a configuration, and no
//! operation ends on one while a replica that answered it knows a later one.
//!
//! A bucket enters the table once its n was ever different from the default, and stays there. So along a chain of configurations tables only
//! grow, and a key changes its group at most once: when its bucket enters the table, with the default n that it had so far. A later
//! reconfiguration changes its n ([`crate::cluster::next_configuration`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::membership::BucketSettings;
use crate::ring::N_MAX;
use crate::value::key::check_bucket;

/// The most buckets in a table: it is part of every configuration, and each bucket has a Merkle tree of its own in every partition.
pub const BUCKETS_MAX: usize = 100;

/// Keys of a partition with the same home replicas: those of one bucket of the table, or of all buckets that are not in it. Equal groups on two
/// nodes mean the same keys, whatever configuration each node follows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Group(pub u64);

impl Group {
    /// The keys of a bucket in the table.
    fn of_bucket(bucket: &[u8]) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(b"bucket");
        hash.update(bucket);
        Self::named(&hash)
    }

    /// The keys of all buckets but these.
    fn of_others<'a>(buckets: impl Iterator<Item = &'a Bytes>) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(b"all but");
        for bucket in buckets {
            hash.update(&(bucket.len() as u64).to_le_bytes());
            hash.update(bucket);
        }
        Self::named(&hash)
    }

    fn named(hash: &blake3::Hasher) -> Self {
        Self(hash.finalize().as_bytes()[..8].try_into().map_or(1, u64::from_le_bytes).max(1))
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Table {
    by_bucket: BTreeMap<Bytes, u8>,
    by_group: BTreeMap<Group, u8>,
    others: Group,
    /// Each n that any bucket has. It is read for each partition, and there may be many buckets.
    ns: BTreeSet<u8>,
}

/// The number of home replicas of each bucket's keys. Immutable, and cheap to share.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReplicaCounts {
    /// `None` if all have the default.
    table: Option<Arc<Table>>,
    is_unknown: bool,
}

impl ReplicaCounts {
    /// The n of every bucket that is not in the table.
    pub fn default_n() -> u8 {
        BucketSettings::default().n
    }

    /// A table with these n. All other buckets have the default.
    pub fn new(by_bucket: BTreeMap<Bytes, u8>) -> Self {
        if by_bucket.is_empty() {
            return Self::default();
        }
        let by_group = by_bucket.iter().map(|(bucket, &n)| (Group::of_bucket(bucket), n)).collect();
        let others = Group::of_others(by_bucket.keys());
        let ns = by_bucket.values().copied().chain([Self::default_n()]).collect();
        Self { table: Some(Arc::new(Table { by_bucket, by_group, others, ns })), is_unknown: false }
    }

    /// The counts of a configuration written by an earlier build, which did not store them: the history of that time applies.
    pub fn unknown() -> Self {
        Self { table: None, is_unknown: true }
    }

    /// Whether an earlier build did not store them.
    pub const fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// The number of home replicas of the keys of `bucket`.
    pub fn n(&self, bucket: &[u8]) -> u8 {
        self.get(bucket).unwrap_or_else(Self::default_n)
    }

    /// The n of a bucket that is in the table.
    pub fn get(&self, bucket: &[u8]) -> Option<u8> {
        self.table.as_ref()?.by_bucket.get(bucket).copied()
    }

    /// The number of home replicas of the keys of a group.
    pub fn n_of(&self, group: Group) -> u8 {
        let known = self.table.as_ref().and_then(|table| table.by_group.get(&group).copied());
        known.unwrap_or_else(Self::default_n)
    }

    /// The group of the keys of `bucket`.
    pub fn group_of(&self, bucket: &[u8]) -> Group {
        let Some(table) = &self.table else { return Group::default() };
        if table.by_bucket.contains_key(bucket) { Group::of_bucket(bucket) } else { table.others }
    }

    /// The group of the keys of all buckets that are not in the table.
    pub fn others(&self) -> Group {
        self.table.as_ref().map_or_else(Group::default, |table| table.others)
    }

    /// All groups, including that of the buckets that are not in the table.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        [self.others()].into_iter().chain(self.table.iter().flat_map(|table| table.by_group.keys().copied()))
    }

    /// Whether it contains this group.
    pub fn has(&self, group: Group) -> bool {
        match &self.table {
            Some(table) => table.others == group || table.by_group.contains_key(&group),
            None => group == Group::default(),
        }
    }

    /// The buckets of the table, with their n.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, u8)> {
        self.table.iter().flat_map(|table| table.by_bucket.iter().map(|(bucket, &n)| (bucket, n)))
    }

    /// The number of buckets in the table.
    pub fn len(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.by_bucket.len())
    }

    /// Whether no bucket is in the table.
    pub const fn is_empty(&self) -> bool {
        self.table.is_none()
    }

    /// Each n that any bucket has.
    pub fn ns(&self) -> BTreeSet<u8> {
        self.table.as_ref().map_or_else(|| BTreeSet::from([Self::default_n()]), |table| table.ns.clone())
    }

    /// The largest n of any bucket.
    pub fn n_max(&self) -> u8 {
        self.table.as_ref().and_then(|table| table.ns.last().copied()).unwrap_or_else(Self::default_n)
    }

    /// Its size in memory in bytes beside the struct, without the overhead of the tables.
    pub fn size_in_memory(&self) -> usize {
        let entry = |(bucket, _): (&Bytes, u8)| size_of::<(Bytes, u8)>() + bucket.len() + size_of::<(Group, u8)>();
        self.iter().map(entry).sum()
    }

    /// Whether it is consistent in itself.
    pub fn is_sound(&self) -> bool {
        let is_sound =
            |(bucket, n): (&Bytes, u8)| check_bucket(bucket).is_ok() && (1..=N_MAX).contains(&usize::from(n));
        !self.is_unknown && self.len() <= BUCKETS_MAX && self.iter().all(is_sound)
    }

    /// Whether a next configuration may have the counts of `next`: no bucket leaves the table, and a new one has the default n. So its keys keep
    /// their homes in the reconfiguration in which they become a group of their own.
    pub fn may_become(&self, next: &Self) -> bool {
        let stays = self.iter().all(|(bucket, _)| next.get(bucket).is_some());
        let comes_as_it_was = |(bucket, n): (&Bytes, u8)| self.get(bucket).is_some() || n == Self::default_n();
        stays && next.iter().all(comes_as_it_was)
    }

    /// A copy with other n: `change` gets each bucket of the table and its n.
    #[must_use]
    pub fn with(&self, change: impl Fn(&Bytes, u8) -> u8) -> Self {
        Self::new(self.iter().map(|(bucket, n)| (bucket.clone(), change(bucket, n))).collect())
    }

    /// A copy with these buckets in the table too, with the default n.
    #[must_use]
    pub fn with_buckets<'a>(&self, buckets: impl Iterator<Item = &'a Bytes>) -> Self {
        let coming =
            buckets.filter(|bucket| self.get(bucket).is_none()).map(|bucket| (bucket.clone(), Self::default_n()));
        Self::new(self.iter().map(|(bucket, n)| (bucket.clone(), n)).chain(coming).collect())
    }
}

/// Tables that were seen recently. Nearly all configurations have equal tables, which are not small, so they share one.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownCounts(Vec<ReplicaCounts>);

impl KnownCounts {
    /// The most tables that are remembered.
    const MAX: usize = 8;

    /// Shares the memory of a known table that is equal.
    pub(crate) fn share(&mut self, counts: &mut ReplicaCounts) {
        if counts.is_empty() {
            return;
        }
        match self.0.iter().find(|known| *known == counts) {
            Some(known) => *counts = known.clone(),
            None => {
                if self.0.len() >= Self::MAX {
                    self.0.remove(0);
                }
                self.0.push(counts.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(buckets: &[(&'static str, u8)]) -> ReplicaCounts {
        ReplicaCounts::new(buckets.iter().map(|&(bucket, n)| (Bytes::from_static(bucket.as_bytes()), n)).collect())
    }

    #[test]
    fn a_bucket_of_the_table_is_one_group_whatever_its_n() {
        let (none, three, five) = (counts(&[]), counts(&[("a", 3)]), counts(&[("a", 5)]));
        assert_eq!((none.n(b"a"), three.n(b"a"), five.n(b"a"), five.n(b"b")), (3, 3, 5, 3));
        assert_eq!(three.group_of(b"a"), five.group_of(b"a"));
        assert_eq!(three.group_of(b"b"), five.group_of(b"c"));
        assert_ne!(none.group_of(b"b"), five.group_of(b"b"), "the group of all other buckets is smaller now");
        assert_eq!(none.n_of(five.group_of(b"a")), 3, "without the bucket in the table its n is the default");
        assert_eq!(five.n_of(five.group_of(b"a")), 5);
        assert_eq!(five.groups().count(), 2);
    }

    #[test]
    fn buckets_enter_the_table_with_the_default_n_and_stay() {
        let (none, three, five) = (counts(&[]), counts(&[("a", 3)]), counts(&[("a", 5)]));
        assert!(none.may_become(&three) && !none.may_become(&five) && three.may_become(&five));
        assert!(five.may_become(&three) && !five.may_become(&none) && five.may_become(&counts(&[("a", 5), ("b", 3)])));
        assert!(five.is_sound() && !counts(&[("a", 0)]).is_sound() && !counts(&[("", 3)]).is_sound());
        assert!(!ReplicaCounts::unknown().is_sound());
    }
}
