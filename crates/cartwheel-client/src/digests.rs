//! What a node's disk holds of a partition.

use serde::Deserialize;

/// A page of what one node's disk holds of a partition, in the order of the keys.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct DigestPage {
    /// The name of the node that answered.
    pub node: String,
    /// Which history of changes it goes by.
    pub ring_version: String,
    /// Who may be a home of the partition's keys, by name: a bucket's keys are at the first n.
    pub walk: Vec<String>,
    /// How many homes the partition has, for keys of the bucket of the largest n.
    #[serde(default)]
    pub homes: usize,
    /// How many homes it is to have: as many as the largest n, or as nodes that can hold data if those are fewer.
    #[serde(default)]
    pub homes_wanted: usize,
    /// The records.
    pub records: Vec<HeldRecord>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
    /// What follows cannot be listed: the disk does not give it out. Then there is no next page.
    pub unreadable: bool,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct HeldRecord {
    /// What it is stored under, as base64url: the key's token (16 bytes), the length of the bucket's name (one byte), bucket, key.
    pub place: String,
    /// How many homes the key has.
    pub n: u8,
    /// Whether the node is one of them; otherwise it stands in for one.
    pub home: bool,
    /// The digest of what is held, in hexadecimal: equal digests, equal contents; zeros, nothing at all.
    pub digest: Option<String>,
    /// Why there is no digest.
    pub problem: Option<Problem>,
    /// How many bytes it takes up on that disk; 0 if it cannot be read.
    pub bytes: u64,
}

/// Why there is no digest of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Problem {
    /// What the disk holds is not what was written.
    Damaged,
    /// The disk does not give it out, or its form is not known there.
    Unreadable,
}
