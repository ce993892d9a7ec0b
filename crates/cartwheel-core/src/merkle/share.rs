//! What a key adds to its tree.

use crate::digest::ContentDigest;
use crate::record::Record;
use crate::state::{Content, State};

/// What a key adds to its tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// What it holds.
    pub digest: ContentDigest,
    /// How many tombstones are among it.
    pub tombstones: u32,
}

impl Share {
    /// Of a key that holds nothing, or is not there.
    pub const NOTHING: Self = Self { digest: ContentDigest::NONE, tombstones: 0 };

    /// Of a key with this state.
    pub fn of(storage_key: &[u8], state: &State) -> Self {
        Self::with(ContentDigest::of(storage_key, state), state)
    }

    /// Of a key with this state, whose digest is known.
    pub fn with(digest: ContentDigest, state: &State) -> Self {
        let tombstones = state.siblings().filter(|held| held.content == Content::Tombstone).count();
        Self { digest, tombstones: u32::try_from(tombstones).unwrap_or(u32::MAX) }
    }

    /// Of a key with this record: the digest as it was folded, if it was.
    pub fn of_record(storage_key: &[u8], record: &Record) -> Self {
        match record.header.content {
            Some(digest) => Self::with(digest, &record.state),
            None => Self::of(storage_key, &record.state),
        }
    }

    /// Whether the key holds nothing.
    pub fn is_nothing(&self) -> bool {
        self.digest == ContentDigest::NONE
    }
}
