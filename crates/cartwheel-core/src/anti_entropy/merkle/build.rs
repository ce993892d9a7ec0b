//! Builds a partition's trees from the store, while the partition is being written to.
//!
//! A scan reads the partition in parts. A write below the scan's position is folded in, and one above it will be read.
//! For a key that is being written while a part is read, the old record counts, whichever of the two the scan has seen;
//! the write is folded in once it has ended. For a write that has ended since the part was requested, the new record
//! counts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{BucketSizes, Grid, Share, Tree};
use crate::cluster::counts::Group;
use crate::message::anti_entropy::KeyRange;
use crate::ring::PartitionId;
use crate::store::command::{ScanLimit, StoreCommand, StoreId};
use crate::value::token::Token;

/// How much one part of a scan reads.
pub const SCAN_LIMIT: ScanLimit = ScanLimit { records: 256, bytes: 1 << 20 };

/// How many lost records of a partition are remembered by key.
const LOSSES_MAX: usize = 10_000;

/// A partition's trees.
pub type Forest = BTreeMap<Group, Tree>;

/// A key as its tree sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeySummary {
    /// Its group.
    pub group: Group,
    /// The share of its tree.
    pub share: Share,
    /// Whether its record was lost and does not count yet.
    pub is_lost: bool,
}

/// The records of a partition that were lost and do not count yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LostRecords {
    keys: BTreeSet<Bytes>,
    /// Whether there are more, whose keys are not remembered.
    more: bool,
}

impl LostRecords {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.more
    }

    /// The keys of some of them.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter()
    }

    /// Records that a record was written, and whether it is lost.
    pub fn note(&mut self, storage_key: impl FnOnce() -> Bytes, is_lost: bool) {
        if is_lost && self.keys.len() >= LOSSES_MAX {
            self.more = true;
        } else if is_lost {
            self.keys.insert(storage_key());
        } else if !self.keys.is_empty() {
            self.keys.remove(&storage_key());
        }
    }
}

/// Trees that are being built.
#[derive(Debug)]
pub struct Build {
    /// The partition.
    pub partition: PartitionId,
    grid: Grid,
    leaf_keys_max: u32,
    forest: Forest,
    sizes: BucketSizes,
    losses: LostRecords,
    /// The part of the partition that is still to be read.
    rest: KeyRange,
    scan: Option<StoreId>,
    /// Writes at or above the scan's position that have ended since the scan under way was requested.
    touched: BTreeMap<Bytes, KeySummary>,
    incomplete: bool,
}

impl Build {
    /// Trees of these depths.
    pub fn new(
        partition: PartitionId,
        grid: Grid,
        depths: impl Iterator<Item = (Group, u8)>,
        leaf_keys_max: u32,
    ) -> Self {
        Self {
            partition,
            grid,
            leaf_keys_max,
            forest: depths.map(|(group, depth)| (group, Tree::new(depth))).collect(),
            sizes: BucketSizes::default(),
            losses: LostRecords::default(),
            rest: grid.whole(),
            scan: None,
            touched: BTreeMap::new(),
            incomplete: false,
        }
    }

    /// Whether a store command is its scan.
    pub fn waits_for(&self, id: StoreId) -> bool {
        self.scan == Some(id)
    }

    pub const fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Requests the next part.
    pub fn scan(&mut self, id: StoreId) -> StoreCommand {
        self.scan = Some(id);
        StoreCommand::Scan { from: self.rest.from.clone(), upto: self.rest.upto.clone(), at_most: SCAN_LIMIT }
    }

    /// The scan has failed, and will be requested again.
    pub fn failed(&mut self) {
        self.scan = None;
        self.touched.clear();
    }

    /// A record cannot be read, so the trees will be incomplete.
    pub const fn mark_incomplete(&mut self) {
        self.incomplete = true;
    }

    /// A write to a key of the partition has succeeded.
    pub fn written(&mut self, storage_key: Bytes, old: Share, held: KeySummary) {
        if storage_key < self.rest.from {
            self.fold(&storage_key, old, held);
        } else if self.scan.is_some() {
            self.touched.insert(storage_key, held);
        }
    }

    fn fold(&mut self, storage_key: &Bytes, old: Share, held: KeySummary) {
        if let (Some(tree), Some(token)) = (self.forest.get_mut(&held.group), token(storage_key)) {
            tree.fold(self.grid.cell(token), old, held.share);
            self.sizes.fold(storage_key, old, held.share);
        }
        self.losses.note(|| storage_key.clone(), held.is_lost);
    }

    /// Takes in a part that was read, up to `end`. `being_written` has the keys of the partition that are being
    /// written, as they were before. True if that was the last part.
    pub fn take(
        &mut self,
        mut read: BTreeMap<Bytes, KeySummary>,
        end: Option<Bytes>,
        being_written: BTreeMap<Bytes, KeySummary>,
    ) -> bool {
        self.scan = None;
        let part = KeyRange { from: self.rest.from.clone(), upto: end.clone().or_else(|| self.rest.upto.clone()) };
        read.extend(being_written);
        read.append(&mut self.touched);
        for (storage_key, held) in read.iter().filter(|(storage_key, _)| part.contains(storage_key)) {
            self.fold(storage_key, Share::NOTHING, *held);
        }
        if self.forest.values().any(|tree| tree.is_overfull(self.leaf_keys_max)) {
            self.begin_again();
            return false;
        }
        let Some(end) = end else { return true };
        self.rest.from = end;
        false
    }

    /// Starts again with trees one level deeper where leaves have too many keys. Each level is sixteen times as wide,
    /// so all the starts together cost less than a tenth of the last.
    fn begin_again(&mut self) {
        for tree in self.forest.values_mut() {
            *tree = Tree::new(tree.depth() + u8::from(tree.is_overfull(self.leaf_keys_max)));
        }
        self.sizes = BucketSizes::default();
        self.losses = LostRecords::default();
        self.rest = self.grid.whole();
        self.incomplete = false;
    }

    /// The trees, or none if a record is missing from them.
    pub fn finish(self) -> Option<(Forest, BucketSizes, LostRecords)> {
        (!self.incomplete).then_some((self.forest, self.sizes, self.losses))
    }
}

/// The token of a storage key.
fn token(storage_key: &[u8]) -> Option<Token> {
    Some(Token::new(u128::from_be_bytes(storage_key.get(..16)?.try_into().ok()?)))
}
