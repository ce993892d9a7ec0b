//! The copy of one partition, from its home replicas into objects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_client::{Client, Error, PartitionSums, RangeSum, Ring};
use cartwheel_core::value::digest::ContentDigest;
use cartwheel_core::value::state::State;
use cartwheel_core::wire::{decode_copies, encode_copies};

use super::BackupError;
use super::manifest::{BackupObject, BackupPart, BackupRange};
use super::place::Place;
use crate::cli::Endpoints;

/// How long a partition is tried while no home can copy it.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// How long a node that did not answer is asked last.
const SKIPPED_FOR: Duration = Duration::from_secs(10);
/// The deepest level of ranges that nodes know.
const LEVEL_MAX: u8 = 3;
/// A range has 16 of the next level.
const FANOUT_BITS: u32 = 4;

/// What the copies of all partitions share.
pub(super) struct Copying {
    pub(super) client: Client,
    pub(super) endpoints: Endpoints,
    pub(super) place: Place,
    pub(super) cluster: String,
    pub(super) partitions: u32,
    /// How many homes of each partition to read.
    pub(super) replicas: usize,
    pub(super) object_bytes: u64,
    pub(super) counts: CopyCounts,
    /// Nodes that did not answer of late: others are asked first.
    pub(super) failed: Mutex<HashMap<String, Instant>>,
}

/// What was copied, and what was not.
#[derive(Default)]
pub(super) struct CopyCounts {
    pub(super) copied_objects: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
    pub(super) copied_records: AtomicU64,
    pub(super) unchanged_objects: AtomicU64,
    pub(super) unchanged_bytes: AtomicU64,
}

/// A home that can copy the partition.
struct Home {
    name: String,
    client: Client,
    sums: PartitionSums,
}

/// The ranges of a partition that are copied, by level and index.
type Done = BTreeMap<(u8, u32), BackupRange>;

impl Copying {
    /// Copies a partition. If a home fails in the middle, the copy goes on with others.
    pub(super) async fn partition(&self, partition: u32, base: Option<&BackupPart>) -> Result<BackupPart, BackupError> {
        let begun = Instant::now();
        let mut done = Done::new();
        loop {
            let why = match self.attempt(partition, base, &mut done).await {
                Ok(part) => return Ok(part),
                Err(BackupError::Client(error @ Error::Unavailable { .. })) => error.to_string(),
                Err(BackupError::NoHome(_, why)) => why,
                Err(error) => return Err(error),
            };
            if begun.elapsed() > PATIENCE {
                return Err(BackupError::NoHome(partition, why));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        partition: u32,
        base: Option<&BackupPart>,
        done: &mut Done,
    ) -> Result<BackupPart, BackupError> {
        let homes = self.homes(partition, base).await?;
        let level = homes[0].sums.level;
        let indexes: BTreeSet<u32> =
            homes.iter().flat_map(|home| home.sums.ranges.iter().map(|sum| sum.range)).collect();
        let base = base.filter(|base| base.level == level);
        let mut ranges = Vec::new();
        for range in indexes {
            let sums: Vec<Option<&RangeSum>> =
                homes.iter().map(|home| home.sums.ranges.iter().find(|sum| sum.range == range)).collect();
            let known = base.and_then(|base| base.ranges.iter().find(|known| known.range == range));
            let is_known = |sum: &&RangeSum| known.is_some_and(|known| known.sums.contains(&sum.sum));
            if let Some(known) = known.filter(|_| sums.iter().flatten().all(is_known)) {
                self.counts.unchanged(known);
                ranges.push(known.clone());
                continue;
            }
            let copied = match done.remove(&(level, range)) {
                Some(copied) => copied,
                None => self.range(partition, range, &homes, &sums).await?,
            };
            done.insert((level, range), copied.clone());
            ranges.push(copied);
        }
        let nodes = homes.into_iter().map(|home| home.name).collect();
        Ok(BackupPart { partition, nodes, level, ranges })
    }

    /// The homes to read, with their sums at one level.
    async fn homes(&self, partition: u32, base: Option<&BackupPart>) -> Result<Vec<Home>, BackupError> {
        let ring = self.client.ring().await?;
        let mut why = "the ring names no home of it".to_owned();
        let mut homes: Vec<Home> = Vec::new();
        let mut candidates = candidates(&ring, partition);
        candidates.sort_by_key(|(name, _)| self.has_failed(name));
        for (name, http) in candidates {
            if homes.len() == self.replicas {
                break;
            }
            let client = self.endpoints.client_of([http])?;
            match client.partition_sums(partition, base.map_or(0, |base| base.level)).await {
                Ok(sums) if sums.cluster != self.cluster || sums.partitions != self.partitions => {
                    return Err(BackupError::OtherCluster(sums.cluster));
                }
                Ok(sums) if sums.node == name => homes.push(Home { name, client, sums }),
                Ok(sums) => why = format!("{} answers at the address of {name}", sums.node),
                Err(error) => {
                    why = format!("{name}: {error}");
                    self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
                }
            }
        }
        let first = homes.first().ok_or(BackupError::NoHome(partition, why))?;
        let mut level = wanted_level(&first.sums, base.map(|base| base.level), self.object_bytes);
        // The trees of different replicas may differ in depth.
        while homes.iter().any(|home| home.sums.level != level) {
            for home in &mut homes {
                home.sums = home.client.partition_sums(partition, level).await?;
            }
            level = homes.iter().map(|home| home.sums.level).min().unwrap_or(0);
        }
        Ok(homes)
    }

    fn has_failed(&self, name: &str) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(name).is_some_and(|at| at.elapsed() < SKIPPED_FOR)
    }

    /// Copies a range from the first home, and from each other home what that adds.
    async fn range(
        &self,
        partition: u32,
        range: u32,
        homes: &[Home],
        sums: &[Option<&RangeSum>],
    ) -> Result<BackupRange, BackupError> {
        let mut copied = BackupRange { range, sums: BTreeSet::new(), objects: Vec::new() };
        let mut seen: HashMap<Bytes, Vec<u128>> = HashMap::new();
        let mut batch = Batch::default();
        for (home, sum) in homes.iter().zip(sums) {
            let Some(bounds) = sum.filter(|sum| !copied.sums.contains(&sum.sum)) else { continue };
            let (mut total, mut next) = (0_u128, Some(bounds.from.clone()));
            while let Some(from) = next {
                let page = home.client.partition_records(partition, &from, bounds.until.as_deref()).await?;
                let records = decode_copies(page.records)
                    .map_err(|error| BackupError::Records(home.name.clone(), error.to_string()))?;
                for record in records {
                    let storage_key = record.key.storage_key();
                    let digest = ContentDigest::of(&storage_key, &record.state).to_u128();
                    total = total.wrapping_add(digest);
                    let known = seen.entry(storage_key.clone()).or_default();
                    if !known.contains(&digest) {
                        known.push(digest);
                        batch.add(storage_key, record.state);
                    }
                    if batch.bytes >= self.object_bytes {
                        copied.objects.extend(self.store(&mut batch).await?);
                    }
                }
                next = page.next;
            }
            // What was read, which may differ from what the home said before.
            copied.sums.insert(format!("{total:032x}"));
        }
        copied.objects.extend(self.store(&mut batch).await?);
        Ok(copied)
    }

    async fn store(&self, batch: &mut Batch) -> Result<Option<BackupObject>, BackupError> {
        let Batch { records, .. } = std::mem::take(batch);
        if records.is_empty() {
            return Ok(None);
        }
        let payload = encode_copies(records.iter().map(|(key, state)| (&key[..], state)));
        let object = self.place.put_records(&payload, records.len() as u64).await?;
        self.counts.copied(&object);
        Ok(Some(object))
    }
}

/// Records that become an object.
#[derive(Default)]
struct Batch {
    records: Vec<(Bytes, State)>,
    bytes: u64,
}

impl Batch {
    fn add(&mut self, storage_key: Bytes, state: State) {
        self.bytes += (storage_key.len() + state.weight().bytes) as u64;
        self.records.push((storage_key, state));
    }
}

impl CopyCounts {
    fn copied(&self, object: &BackupObject) {
        self.copied_objects.fetch_add(1, Ordering::Relaxed);
        self.copied_bytes.fetch_add(object.bytes, Ordering::Relaxed);
        self.copied_records.fetch_add(object.records, Ordering::Relaxed);
    }

    fn unchanged(&self, range: &BackupRange) {
        self.unchanged_objects.fetch_add(range.objects.len() as u64, Ordering::Relaxed);
        let bytes = range.objects.iter().map(|object| object.bytes).sum();
        self.unchanged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The homes of a partition, by name and address. Each partition begins at another one, so that the nodes share the work; the first home alone
/// holds the keys of every bucket for certain, and is tried in any case.
fn candidates(ring: &Ring, partition: u32) -> Vec<(String, String)> {
    let homes = ring.homes.get(partition as usize).into_iter().flatten();
    let members = homes.filter_map(|&member| ring.members.get(member));
    let mut homes: Vec<_> = members.map(|member| (member.name.clone(), member.http.clone())).collect();
    if !homes.is_empty() {
        let first = partition as usize % homes.len();
        homes.rotate_left(first);
    }
    homes
}

/// The level at which ranges have about the wanted size. That of the backup before is kept while it is not far off: sums of another level cannot
/// be compared with it.
fn wanted_level(sums: &PartitionSums, before: Option<u8>, object_bytes: u64) -> u8 {
    let size = |level: u8| sums.bytes >> (u32::from(level) * FANOUT_BITS);
    let deepest = sums.depth.min(LEVEL_MAX);
    let is_fit = |&level: &u8| {
        let is_small = level > 0 && size(level) < object_bytes / 16;
        level <= deepest && size(level) <= object_bytes.saturating_mul(16) && !is_small
    };
    let fresh = (0..deepest).find(|&level| size(level) < object_bytes.saturating_mul(4)).unwrap_or(deepest);
    before.filter(is_fit).unwrap_or(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(bytes: u64, depth: u8) -> PartitionSums {
        let (node, cluster) = (String::new(), String::new());
        PartitionSums { node, cluster, partitions: 1, keys: 1, bytes, depth, level: 0, ranges: Vec::new() }
    }

    #[test]
    fn ranges_have_about_the_size_of_an_object_and_keep_their_level_while_they_do() {
        const MIB: u64 = 1 << 20;
        for (mib, depth, before, level) in [
            (0, 3, None, 0),
            (3, 3, None, 0),
            (5, 3, None, 1),
            (5, 0, None, 0),
            (100, 3, None, 2),
            (100, 1, None, 1),
            (1_000_000, 3, None, 3),
            (15, 3, Some(0), 0),
            (17, 3, Some(0), 1),
            (2, 3, Some(1), 1),
            (0, 3, Some(1), 0),
            (100, 1, Some(2), 1),
        ] {
            assert_eq!(wanted_level(&sums(mib * MIB, depth), before, MIB), level, "{mib} MiB, {depth}, {before:?}");
        }
    }
}
