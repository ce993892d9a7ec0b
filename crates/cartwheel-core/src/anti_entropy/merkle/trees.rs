//! The trees that a node keeps, and whether they are ready to be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::build::{Build, Forest, KeySummary, LostRecords};
use super::saved::{self, SavedBy};
use super::{BucketSizes, Grid, Tree};
use crate::cluster::counts::Group;
use crate::cluster::holdings::Holdings;
use crate::cluster::sizes::{Size, TreeId};
use crate::config::NodeConfig;
use crate::mutation::{Broken, Mutation};
use crate::ring::PartitionId;
use crate::store::command::{Scanned, StoreCommand, StoreId, StoreResult};
use crate::store::record::Record;
use crate::store::share::{RecordChange, Share};
use crate::value::dot::Since;
use crate::value::key::Key;
use crate::value::time::Instant;

/// How many writes may end while a saved tree is read. After more, the tree is built anew.
const LATE_MAX: usize = 1_000;
/// How long to wait after a failed scan.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The findings of a scan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScanFindings {
    /// Records that are unreadable, or lost and not recovered yet.
    pub lost: Vec<Key>,
    /// A partition whose tree differed from its records.
    pub wrong: Option<PartitionId>,
}

/// The trees of one shard.
#[derive(Debug)]
pub struct Trees {
    by: SavedBy,
    loss_floor: Since,
    leaf_keys_max: u32,
    scan_pause: Duration,
    scrub_every: Duration,
    held: Arc<Holdings>,
    kept: BTreeMap<PartitionId, PartitionTrees>,
    /// The partitions whose trees are to be built.
    wanted: BTreeSet<PartitionId>,
    build: Option<Build>,
    recalls: BTreeMap<StoreId, PartitionId>,
    unready: usize,
    next_scan_at: Instant,
    /// The ready partition that was scanned last to verify its trees, and when the next one is.
    scrubbed: Option<PartitionId>,
    next_scrub_at: Option<Instant>,
    broken: Broken,
}

#[derive(Debug)]
struct PartitionTrees {
    grid: Grid,
    forest: Forest,
    sizes: BucketSizes,
    losses: LostRecords,
    phase: TreesPhase,
}

impl PartitionTrees {
    const fn is_ready(&self) -> bool {
        matches!(self.phase, TreesPhase::Ready)
    }
}

#[derive(Debug)]
enum TreesPhase {
    /// The trees equal the sums of the records.
    Ready,
    /// Saved trees are being read. These writes have ended since.
    Recalling(Vec<(Key, Share, KeySummary)>),
    /// The trees must be built.
    Absent,
}

impl Trees {
    /// The trees of one boot, none of them ready.
    pub fn new(config: &NodeConfig, held: Arc<Holdings>) -> Self {
        let mut trees = Self {
            by: SavedBy { incarnation: config.incarnation, boot: config.boot },
            loss_floor: config.loss_floor,
            leaf_keys_max: config.limits.leaf_keys_max.max(1),
            scan_pause: config.timing.scan_pause,
            scrub_every: config.timing.scrub_every,
            held: held.clone(),
            kept: BTreeMap::new(),
            wanted: BTreeSet::new(),
            build: None,
            recalls: BTreeMap::new(),
            unready: 0,
            next_scan_at: Instant::default(),
            scrubbed: None,
            next_scrub_at: None,
            broken: config.broken,
        };
        trees.adopt_holdings(held);
        trees
    }

    /// The groups of a partition's keys for which this node keeps trees.
    fn groups(&self, partition: PartitionId) -> BTreeSet<Group> {
        self.held.groups(partition).into_iter().filter(|&group| self.held.keeps(partition, group)).collect()
    }

    /// Adopts new settings or configurations. If keys may have moved from one tree to another, both trees are built
    /// anew. If only the partition states of `touched` partitions have changed, the others stay as they are; returns
    /// true if all partitions were gone through.
    pub fn set_held(&mut self, held: Arc<Holdings>, touched: &BTreeSet<PartitionId>) -> bool {
        let is_placed_alike = held.view().places_like(self.held.view());
        if !is_placed_alike {
            self.adopt_holdings(held);
            return true;
        }
        self.held = held;
        touched.iter().for_each(|&partition| self.adopt_partition(partition));
        false
    }

    fn adopt_holdings(&mut self, held: Arc<Holdings>) {
        self.held = held.clone();
        held.partition_states().for_each(|(partition, _)| self.adopt_partition(partition));
        self.unready = self.kept.values().filter(|kept| !kept.is_ready()).count();
    }

    /// Adopts the groups of a partition.
    fn adopt_partition(&mut self, partition: PartitionId) {
        let groups = self.groups(partition);
        if self.kept.get(&partition).is_some_and(|kept| kept.forest.keys().eq(&groups)) {
            return;
        }
        if let Some(gone) = self.kept.remove(&partition) {
            self.unready = self.unready.saturating_sub(usize::from(!gone.is_ready()));
        }
        self.cancel_work(partition);
        self.wanted.remove(&partition);
        if !groups.is_empty() {
            let forest = groups.into_iter().map(|group| (group, Tree::new(0))).collect();
            let grid = Grid::of(self.held.view().ring.partitions(), partition);
            self.kept.insert(
                partition,
                PartitionTrees {
                    grid,
                    forest,
                    sizes: BucketSizes::default(),
                    losses: LostRecords::default(),
                    phase: TreesPhase::Absent,
                },
            );
            self.wanted.insert(partition);
            self.unready += 1;
        }
    }

    /// All trees that this node keeps, ready or not.
    pub fn ids(&self) -> impl Iterator<Item = TreeId> + '_ {
        self.kept
            .iter()
            .flat_map(|(&partition, kept)| kept.forest.keys().map(move |&group| TreeId { partition, group }))
    }

    /// The trees that this node keeps of a partition, ready or not.
    pub fn ids_of(&self, partition: PartitionId) -> impl Iterator<Item = TreeId> + '_ {
        let kept = self.kept.get(&partition).into_iter();
        kept.flat_map(move |kept| kept.forest.keys().map(move |&group| TreeId { partition, group }))
    }

    /// Whether this node keeps the tree, ready or not.
    pub fn contains(&self, id: TreeId) -> bool {
        self.kept.get(&id.partition).is_some_and(|kept| kept.forest.contains_key(&id.group))
    }

    /// The tree, if it is ready.
    pub fn get(&self, id: TreeId) -> Option<&Tree> {
        let kept = self.kept.get(&id.partition)?;
        if kept.is_ready() { kept.forest.get(&id.group) } else { None }
    }

    /// The size of the tree, if it is ready.
    pub fn size(&self, id: TreeId) -> Option<Size> {
        self.get(id).map(Tree::size)
    }

    /// How many keys a leaf may have on average.
    pub const fn leaf_keys_max(&self) -> u32 {
        self.leaf_keys_max
    }

    /// The grid of a partition, if this node keeps trees of it.
    pub fn grid(&self, partition: PartitionId) -> Option<&Grid> {
        self.kept.get(&partition).map(|kept| &kept.grid)
    }

    /// The sizes of a partition's buckets, if its trees are ready.
    pub fn bucket_sizes(&self, partition: PartitionId) -> Option<&BucketSizes> {
        self.kept.get(&partition).filter(|kept| kept.is_ready()).map(|kept| &kept.sizes)
    }

    /// The records of a partition that were lost and do not count yet.
    pub fn losses(&self, partition: PartitionId) -> Option<&LostRecords> {
        self.kept.get(&partition).map(|kept| &kept.losses)
    }

    /// How many partitions' trees are not ready.
    pub const fn unready(&self) -> usize {
        self.unready
    }

    /// The number of tombstones in all trees that are ready.
    pub fn tombstones(&self) -> u64 {
        let ready = self.kept.values().filter(|kept| kept.is_ready());
        ready.flat_map(|kept| kept.forest.values()).map(Tree::tombstones).sum()
    }

    /// The tree that a key belongs to.
    pub fn id_of(&self, key: &Key) -> TreeId {
        self.held.tree_of(key)
    }

    /// The summary of a record that was read; none if the bytes are not a record of this key. Losses before the loss
    /// floor are not marked: the recovery of the whole tree covers them.
    pub fn held(&self, storage_key: &Bytes, record: &Bytes) -> Option<KeySummary> {
        let record = Record::decode(record, storage_key).ok()?;
        let partition = self.held.view().ring.partition_of(Key::token_of_storage_key(storage_key)?);
        let group = self.held.group(partition, Key::bucket_of_storage_key(storage_key)?);
        let is_lost = record.header.is_lost_since(self.loss_floor);
        Some(KeySummary { group, share: Share::of_record(storage_key, &record), is_lost })
    }

    /// Begins to read the trees that an orderly stop has saved.
    pub fn recall(&mut self, mut number: impl FnMut() -> StoreId) -> Vec<(StoreId, StoreCommand)> {
        let mut commands = Vec::new();
        for (&partition, kept) in &mut self.kept {
            let id = number();
            kept.phase = TreesPhase::Recalling(Vec::new());
            self.wanted.remove(&partition);
            self.recalls.insert(id, partition);
            commands.push((id, StoreCommand::Recall { name: name(partition) }));
        }
        commands
    }

    /// The commands that save the trees that are ready, of partitions that are not being written to. No write may
    /// follow.
    pub fn save(
        &self,
        mut number: impl FnMut() -> StoreId,
        being_written: &BTreeSet<PartitionId>,
    ) -> Vec<(StoreId, StoreCommand)> {
        let is_good = |(partition, kept): &(&PartitionId, &PartitionTrees)| {
            kept.is_ready() && kept.losses.is_empty() && !being_written.contains(partition)
        };
        let save = |(&partition, kept): (&PartitionId, &PartitionTrees)| {
            (
                number(),
                StoreCommand::Remember {
                    name: name(partition),
                    value: saved::encode(&kept.forest, &kept.sizes, self.by),
                },
            )
        };
        self.kept.iter().filter(is_good).map(save).collect()
    }

    /// Takes in the change of a record.
    pub fn change(&mut self, change: RecordChange) {
        match change {
            RecordChange::Written { key, old, new, is_lost } => {
                let id = self.id_of(&key);
                self.written(&key, id.partition, old, KeySummary { group: id.group, share: new, is_lost });
            }
            RecordChange::Doubtful(key) | RecordChange::Lost(key) => self.invalidate(self.id_of(&key).partition),
        }
    }

    fn written(&mut self, key: &Key, partition: PartitionId, old: Share, held: KeySummary) {
        if let Some(build) = self.build.as_mut().filter(|build| build.partition == partition) {
            build.written(key.storage_key(), old, held);
        }
        let Some(kept) = self.kept.get_mut(&partition) else { return };
        let cell = kept.grid.cell(key.token());
        match &mut kept.phase {
            TreesPhase::Ready => {
                if let Some(tree) = kept.forest.get_mut(&held.group) {
                    tree.fold(cell, old, held.share);
                    kept.sizes.fold_in(key.bucket(), key.generation(), old, held.share);
                    if tree.is_overfull(self.leaf_keys_max) {
                        self.wanted.insert(partition);
                    }
                }
                kept.losses.note(|| key.storage_key(), held.is_lost);
            }
            TreesPhase::Recalling(late) if late.len() < LATE_MAX && !held.is_lost => {
                late.push((key.clone(), old, held))
            }
            TreesPhase::Recalling(_) => self.invalidate(partition),
            TreesPhase::Absent => {}
        }
    }

    /// Marks a partition's trees to be built anew.
    fn invalidate(&mut self, partition: PartitionId) {
        self.cancel_work(partition);
        if let Some(kept) = self.kept.get_mut(&partition) {
            self.unready += usize::from(kept.is_ready());
            kept.phase = TreesPhase::Absent;
            self.wanted.insert(partition);
        }
    }

    /// Abandons any recall or build of a partition.
    fn cancel_work(&mut self, partition: PartitionId) {
        self.recalls.retain(|_, recalled| *recalled != partition);
        self.build.take_if(|build| build.partition == partition);
    }

    /// The next part of a scan, if one is due.
    pub fn tick(&mut self, now: Instant, number: impl FnOnce() -> StoreId) -> Option<(StoreId, StoreCommand)> {
        if now < self.next_scan_at || self.build.as_ref().is_some_and(Build::is_scanning) {
            return None;
        }
        self.scrub(now);
        if self.build.is_none() {
            // Trees that are not ready come before ready ones that are to grow.
            let is_ready = |partition: &&PartitionId| self.kept[partition].is_ready();
            let partition = *self.wanted.iter().find(|p| !is_ready(p)).or_else(|| self.wanted.first())?;
            self.wanted.remove(&partition);
            let kept = &self.kept[&partition];
            let depths =
                kept.forest.iter().map(|(&group, tree)| (group, Tree::depth_for(tree.keys(), self.leaf_keys_max)));
            self.build = Some(Build::new(partition, kept.grid, depths, self.leaf_keys_max));
        }
        let id = number();
        Some((id, self.build.as_mut()?.scan(id)))
    }

    /// Schedules one ready partition at a time to be scanned again: its records are read, and their sums compared with
    /// its trees.
    fn scrub(&mut self, now: Instant) {
        let every = self.scrub_every / (self.kept.len().max(1) as u32);
        let next = *self.next_scrub_at.get_or_insert(now + every);
        if now < next || !self.wanted.is_empty() || self.build.is_some() {
            return;
        }
        let behind = (self.scrubbed.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let following = self.kept.range(behind).next();
        self.scrubbed = following.or_else(|| self.kept.first_key_value()).map(|(&partition, _)| partition);
        self.wanted.extend(self.scrubbed);
        self.next_scrub_at = Some(now + every);
    }

    /// When [`Self::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Instant> {
        if self.build.as_ref().is_some_and(Build::is_scanning) || self.kept.is_empty() {
            return None;
        }
        let is_idle = self.build.is_none() && self.wanted.is_empty();
        let due = if is_idle { self.next_scrub_at.unwrap_or_default() } else { Instant::default() };
        Some(due.max(self.next_scan_at))
    }

    /// Whether a store command is of the trees.
    pub fn waits_for(&self, id: StoreId) -> bool {
        self.recalls.contains_key(&id) || self.build.as_ref().is_some_and(|build| build.waits_for(id))
    }

    /// Takes in the result of a store command. `being_written` has the keys being written, and the share each had
    /// before.
    pub fn stored<'a>(
        &mut self,
        now: Instant,
        id: StoreId,
        result: StoreResult,
        being_written: impl Iterator<Item = (&'a Key, Share)>,
    ) -> ScanFindings {
        if let Some(partition) = self.recalls.remove(&id) {
            self.recalled(partition, result);
            return ScanFindings::default();
        }
        self.next_scan_at = now + self.scan_pause;
        match result {
            StoreResult::Scanned(Ok(scanned)) => self.scanned(scanned, being_written),
            _ => {
                self.next_scan_at = now + RETRY_AFTER;
                self.build.iter_mut().for_each(Build::failed);
                ScanFindings::default()
            }
        }
    }

    fn recalled(&mut self, partition: PartitionId, result: StoreResult) {
        let Some(kept) = self.kept.get_mut(&partition) else { return };
        // They may have been built meanwhile.
        let TreesPhase::Recalling(late) = &mut kept.phase else { return };
        let late = std::mem::take(late);
        kept.phase = TreesPhase::Absent;
        let saved = match result {
            StoreResult::Read(Ok(Some(bytes))) => saved::decode(&bytes),
            _ => None,
        };
        let before = SavedBy { boot: self.by.boot.wrapping_sub(1), ..self.by };
        let is_believed = |by| by == before || self.broken.is(Mutation::TreeTrustedAfterCrash);
        match saved {
            Some((forest, sizes, by)) if is_believed(by) && forest.keys().eq(kept.forest.keys()) => {
                (kept.forest, kept.sizes) = (forest, sizes);
                kept.phase = TreesPhase::Ready;
                self.unready -= 1;
                for (key, old, held) in late {
                    if let Some(tree) = kept.forest.get_mut(&held.group) {
                        tree.fold(kept.grid.cell(key.token()), old, held.share);
                        kept.sizes.fold_in(key.bucket(), key.generation(), old, held.share);
                    }
                }
                if kept.forest.values().any(|tree| tree.is_overfull(self.leaf_keys_max)) {
                    self.wanted.insert(partition);
                }
            }
            _ => drop(self.wanted.insert(partition)),
        }
    }

    fn scanned<'a>(&mut self, scanned: Scanned, being_written: impl Iterator<Item = (&'a Key, Share)>) -> ScanFindings {
        let Some(mut build) = self.build.take() else { return ScanFindings::default() };
        let (mut found, mut read) = (ScanFindings::default(), BTreeMap::new());
        for (storage_key, record) in &scanned.records {
            let held = self.held(storage_key, record);
            if held.is_none_or(|held| held.is_lost) {
                found.lost.extend(Key::from_storage_key(storage_key));
            }
            match held {
                Some(held) => drop(read.insert(storage_key.clone(), held)),
                None => build.mark_incomplete(),
            }
        }
        for storage_key in &scanned.damaged {
            found.lost.extend(Key::from_storage_key(storage_key));
            build.mark_incomplete();
        }
        let writes = being_written.filter_map(|(key, share)| {
            let id = self.id_of(key);
            (id.partition == build.partition)
                .then(|| (key.storage_key(), KeySummary { group: id.group, share, is_lost: false }))
        });
        let writes = writes.collect();
        if build.take(read, scanned.next(), writes) {
            found.wrong = self.built(build);
        } else {
            self.build = Some(build);
        }
        found
    }

    /// Replaces a partition's trees with the new ones. Returns the partition if the old ones were wrong.
    fn built(&mut self, build: Build) -> Option<PartitionId> {
        let partition = build.partition;
        let kept = self.kept.get_mut(&partition)?;
        let Some((forest, sizes, losses)) = build.finish() else {
            self.wanted.insert(partition);
            return None;
        };
        let agree = forest.iter().all(|(group, tree)| kept.forest.get(group).is_some_and(|old| old.agrees(tree)));
        let was_wrong = kept.is_ready() && !agree;
        self.unready -= usize::from(!kept.is_ready());
        (kept.forest, kept.sizes, kept.losses, kept.phase) = (forest, sizes, losses, TreesPhase::Ready);
        was_wrong.then_some(partition)
    }
}

fn name(partition: PartitionId) -> Bytes {
    [b"tree ", &partition.0.to_be_bytes()[..]].concat().into()
}
