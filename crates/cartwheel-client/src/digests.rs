//! The records of a partition on one node's disk.

use serde::Deserialize;

/// A page of the records of a partition on one node's disk, in the order of their keys.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct DigestPage {
    /// The name of the node that answered.
    pub node: String,
    /// The version of the membership history that the node applies.
    pub ring_version: String,
    /// The nodes that may be homes of the partition's keys, by name. The first n are the homes of the keys of a bucket.
    pub walk: Vec<String>,
    /// The number of homes of the partition, for keys of the bucket with the largest n.
    #[serde(default)]
    pub homes: usize,
    /// The number of homes that it should have: the largest n, or the number of nodes that can hold data if that is less.
    #[serde(default)]
    pub homes_target: usize,
    /// In the order of their storage keys.
    pub records: Vec<HeldRecord>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
    /// Whether the disk failed to read what follows. Then there is no next page.
    pub unreadable: bool,
}

/// A record on a disk.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct HeldRecord {
    /// The key in the store, as base64url: the token (16 bytes), the length of the bucket's name (one byte), the bucket, the key.
    pub storage_key: String,
    /// The number of homes of the key.
    pub n: u8,
    /// Whether the node is a home of the key; otherwise it holds the record as a stand-in.
    pub home: bool,
    /// The digest of the record, in hexadecimal. Equal digests mean equal contents; zeros mean an empty record. `None` if there is a `problem`.
    pub digest: Option<String>,
    /// Why there is no digest; `None` if there is one.
    pub problem: Option<DigestProblem>,
    /// The size of the record on that disk; 0 if it cannot be read.
    pub bytes: u64,
}

/// Why a record has no digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestProblem {
    /// The disk returned other bytes than were written.
    Damaged,
    /// The disk returned an error, or the node does not know the record's format.
    Unreadable,
}
