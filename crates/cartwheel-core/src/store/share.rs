//! A key's contribution to its Merkle tree.

use crate::store::record::Record;
use crate::value::digest::ContentDigest;
use crate::value::key::Key;
use crate::value::state::{Content, State};

/// A key's contribution to its Merkle tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// The digest of its content.
    pub digest: ContentDigest,
    /// The number of its tombstones.
    pub tombstones: u32,
    /// The size of the key and its content in bytes; 0 without content.
    pub bytes: u64,
    /// Whether it holds a value, expired or not.
    pub is_live: bool,
}

impl Share {
    /// The share of a key without content, or without a record.
    pub const NOTHING: Self = Self { digest: ContentDigest::NONE, tombstones: 0, bytes: 0, is_live: false };

    /// The share of a key with this state.
    pub fn of(storage_key: &[u8], state: &State) -> Self {
        Self::with(ContentDigest::of(storage_key, state), storage_key.len(), state)
    }

    /// The share of a key with this state and its known digest, stored under a key of `key_bytes` bytes.
    pub fn with(digest: ContentDigest, key_bytes: usize, state: &State) -> Self {
        if digest == ContentDigest::NONE {
            return Self::NOTHING;
        }
        let (mut tombstones, mut bytes, mut is_live) = (0_u32, key_bytes, false);
        for held in state.siblings() {
            match &held.content {
                Content::Value { .. } => {
                    bytes += held.content.weight();
                    is_live = true;
                }
                Content::Tombstone => tombstones = tombstones.saturating_add(1),
            }
        }
        Self { digest, tombstones, bytes: bytes as u64, is_live }
    }

    /// The share of a key with this record, with the digest that the record stores, if it has one.
    pub fn of_record(storage_key: &[u8], record: &Record) -> Self {
        match record.header.content {
            Some(digest) => Self::with(digest, storage_key.len(), &record.state),
            None => Self::of(storage_key, &record.state),
        }
    }

    /// Whether the key has no content.
    pub fn is_nothing(&self) -> bool {
        self.digest == ContentDigest::NONE
    }
}

/// A change of a key's record.
#[derive(Clone, Debug)]
pub enum RecordChange {
    /// It was written, durably.
    Written {
        /// The key.
        key: Key,
        /// Its share before.
        old: Share,
        /// Its share now.
        new: Share,
        /// Whether the record was lost and has not recovered.
        is_lost: bool,
    },
    /// A write has an unknown outcome.
    Doubtful(Key),
    /// It could not be read.
    Lost(Key),
}
