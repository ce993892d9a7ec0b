//! What a key adds to its tree.

use crate::store::record::Record;
use crate::value::digest::ContentDigest;
use crate::value::key::Key;
use crate::value::state::{Content, State};

/// What a key adds to its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// What it holds.
    pub digest: ContentDigest,
    /// How many tombstones are among it.
    pub tombstones: u32,
    /// How many bytes the key and what it holds have; 0 where it holds nothing.
    pub bytes: u64,
}

impl Share {
    /// Of a key that holds nothing, or is not there.
    pub const NOTHING: Self = Self { digest: ContentDigest::NONE, tombstones: 0, bytes: 0 };

    /// Of a key with this state.
    pub fn of(storage_key: &[u8], state: &State) -> Self {
        Self::with(ContentDigest::of(storage_key, state), storage_key.len(), state)
    }

    /// Of a key with this state, whose digest is known, stored under so many bytes.
    pub fn with(digest: ContentDigest, key_bytes: usize, state: &State) -> Self {
        if digest == ContentDigest::NONE {
            return Self::NOTHING;
        }
        let (mut tombstones, mut bytes) = (0_u32, key_bytes);
        for held in state.siblings() {
            match &held.content {
                Content::Value { .. } => bytes += held.content.weight(),
                Content::Tombstone => tombstones = tombstones.saturating_add(1),
            }
        }
        Self { digest, tombstones, bytes: bytes as u64 }
    }

    /// Of a key with this record: the digest as it was folded, if it was.
    pub fn of_record(storage_key: &[u8], record: &Record) -> Self {
        match record.header.content {
            Some(digest) => Self::with(digest, storage_key.len(), &record.state),
            None => Self::of(storage_key, &record.state),
        }
    }

    /// Whether the key holds nothing.
    pub fn is_nothing(&self) -> bool {
        self.digest == ContentDigest::NONE
    }
}

/// What has become of a key's record.
#[derive(Clone, Debug)]
pub enum RecordChange {
    /// It was written, durably.
    Written {
        /// The key.
        key: Key,
        /// What it added to its tree.
        old: Share,
        /// What it adds now.
        new: Share,
        /// The record was lost and does not count yet.
        is_lost: bool,
    },
    /// It was to be written, and may have been or not.
    Doubtful(Key),
    /// It could not be read.
    Lost(Key),
}
