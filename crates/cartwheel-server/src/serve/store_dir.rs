//! The directories of the shards' stores, and which node they belong to.

use std::path::PathBuf;

use bytes::Bytes;
use cartwheel_storage::{Batch, Durability, FjallOptions, FjallStore, Store as _};

use super::ServeError;
use crate::config::Config;
use crate::data_dir::DataDir;

/// The name under which a store keeps its owner.
const OWNER: &[u8] = b"owner";

/// With less memory than this, a store flushes and merges too often, however many shards share the node's memory: a put costs 1.15 times the CPU
/// with it, 1.4 times with half of it.
const MEMTABLE_BYTES_MIN: u64 = 16 << 20;

/// The directory of a shard's store, and the owner it must have: with another store, or an empty one in place of a lost one, the node would
/// answer for records that it does not have.
pub(super) struct StoreDir {
    dir: PathBuf,
    options: FjallOptions,
    owner: Bytes,
    /// Whether the node has run before, so that the store must exist.
    is_old: bool,
}

impl StoreDir {
    /// The directories of all shards of a node, which share its memory.
    pub(super) fn of_all(data_dir: &DataDir, config: &Config) -> Vec<Self> {
        let identity = data_dir.identity();
        let shards = identity.shards.get();
        let memtable_bytes = (FjallOptions::default().memtable_bytes / u64::from(shards)).max(MEMTABLE_BYTES_MIN);
        let options = FjallOptions {
            cache_bytes: config.cache_bytes / 2 / u64::from(shards),
            memtable_bytes,
            ..FjallOptions::default()
        };
        let store_dir = |shard: u32| {
            let owner = [&identity.incarnation.0.to_be_bytes()[..], &shard.to_be_bytes()].concat().into();
            Self { dir: data_dir.shard_dir(shard), options, owner, is_old: identity.boot > 0 }
        };
        (0..shards).map(store_dir).collect()
    }

    /// Opens the store, or makes it if the node is new.
    pub(super) fn open(&self) -> Result<FjallStore, ServeError> {
        let mut store = FjallStore::open(&self.dir, self.options)?;
        match store.get_meta(OWNER)? {
            None if !self.is_old => {
                let mut batch = Batch::new();
                batch.put_meta(OWNER, self.owner.clone());
                store.commit(batch, Durability::Synced)?;
                Ok(store)
            }
            found => self.owned(store, found),
        }
    }

    /// Opens the store again after it has failed in this process.
    pub(super) fn reopen(&self) -> Result<FjallStore, ServeError> {
        let store = FjallStore::reopen(&self.dir, self.options)?;
        let found = store.get_meta(OWNER)?;
        self.owned(store, found)
    }

    fn owned(&self, store: FjallStore, found: Option<Bytes>) -> Result<FjallStore, ServeError> {
        match found {
            Some(found) if found == self.owner => Ok(store),
            Some(_) => Err(ServeError::StoreOfAnother(self.dir.clone())),
            None => Err(ServeError::StoreLost(self.dir.clone())),
        }
    }
}
