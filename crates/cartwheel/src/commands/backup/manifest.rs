//! What a backup says of itself.

use std::collections::{BTreeMap, BTreeSet};

use cartwheel_client::Buckets;
use serde::{Deserialize, Serialize};

/// The version of these forms.
pub(super) const FORMAT: u32 = 1;

/// The head of a place: the object `place`, which is never encrypted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct PlaceHead {
    pub(super) format: u32,
    /// How the right key is told from others; none if backups are not encrypted.
    pub(super) key_check: Option<String>,
}

/// A backup that was begun.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct BegunBackup {
    pub(super) format: u32,
    /// The time at which it began, which is its name.
    pub(super) id: String,
    /// The id of the cluster, in hexadecimal.
    pub(super) cluster: String,
    pub(super) partitions: u32,
    /// The backup whose objects it refers to where nothing has changed.
    pub(super) base: Option<String>,
    /// The settings of the buckets when it began.
    pub(super) buckets: Buckets,
}

/// A finished backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    #[serde(flatten)]
    pub(super) begun: BegunBackup,
    /// When it ended, as RFC 3339.
    pub(super) ended: String,
    /// One for each partition, in order.
    pub(super) parts: Vec<BackupPart>,
}

/// A partition of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct BackupPart {
    pub(super) partition: u32,
    /// The names of the nodes that it was read from.
    pub(super) nodes: Vec<String>,
    /// The level of its ranges in the Merkle tree.
    pub(super) level: u8,
    pub(super) ranges: Vec<BackupRange>,
}

/// A range of a partition that holds keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct BackupRange {
    pub(super) range: u32,
    /// The Merkle sums of contents that are wholly in the objects, in hexadecimal.
    pub(super) sums: BTreeSet<String>,
    pub(super) objects: Vec<BackupObject>,
}

/// An object with records.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) struct BackupObject {
    /// The BLAKE3 checksum that ends it, in hexadecimal.
    pub(super) id: String,
    /// Its size.
    pub(super) bytes: u64,
    pub(super) records: u64,
}

impl BackupPart {
    /// Its objects.
    pub(super) fn objects(&self) -> impl Iterator<Item = &BackupObject> {
        self.ranges.iter().flat_map(|range| &range.objects)
    }
}

impl Manifest {
    /// Its objects by id.
    pub(super) fn objects(&self) -> BTreeMap<&str, &BackupObject> {
        self.parts.iter().flat_map(BackupPart::objects).map(|object| (object.id.as_str(), object)).collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.objects().values().map(|object| object.bytes).sum()
    }

    pub(super) fn records(&self) -> u64 {
        self.objects().values().map(|object| object.records).sum()
    }

    /// The partitions that are missing, or there more than once.
    pub(super) fn missing(&self) -> Vec<u32> {
        let count = |partition: u32| self.parts.iter().filter(|part| part.partition == partition).count();
        if self.parts.iter().map(|part| part.partition).eq(0..self.begun.partitions) {
            return Vec::new();
        }
        (0..self.begun.partitions).filter(|&partition| count(partition) != 1).collect()
    }
}
