//! The engines behind the [`Store`] trait: fjall with any of its settings, and others to compare it with.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_storage::{Batch, Durability, IndexScan, Scan, Store, StoreError, Write};
use fjall::{AbstractTree as _, Database, DatabaseBuilder, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase as _, TableDefinition};

/// The memory of an engine other than fjall: as much as fjall's cache.
const CACHE_BYTES: usize = 128 << 20;
const MEMTABLE_BYTES: usize = 64 << 20;

/// redb keeps commits that are not durable in memory and frees no space until a durable one, so every so many commits are durable.
const REDB_DURABLE_EVERY: u32 = 256;

/// fjall as [`cartwheel_storage::FjallStore`] uses it, with the settings that it does not offer.
pub struct Fjall {
    records: Keyspace,
    meta: Keyspace,
    index: Keyspace,
    database: Database,
}

impl Fjall {
    pub fn open(
        dir: &Path,
        database: impl FnOnce(DatabaseBuilder<Database>) -> DatabaseBuilder<Database>,
        records: impl FnOnce(KeyspaceCreateOptions) -> KeyspaceCreateOptions,
    ) -> Self {
        let database = database(Database::builder(dir)).open().expect("the database opens");
        let keyspace = |name, options| database.keyspace(name, || options).expect("the keyspace opens");
        let records = keyspace("records", records(KeyspaceCreateOptions::default()));
        let meta = keyspace("meta", KeyspaceCreateOptions::default());
        let index = keyspace("index", KeyspaceCreateOptions::default());
        Self { records, meta, index, database }
    }
}

impl Store for Fjall {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.records.get(key)?.map(Bytes::from))
    }

    fn scan(&self, _: &[u8], _: Option<&[u8]>) -> Scan<'_> {
        unreachable!("the bench scans nothing")
    }

    fn scan_index(&self, _: &[u8], _: &[u8]) -> IndexScan<'_> {
        unreachable!("the bench scans nothing")
    }

    fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.meta.get(name)?.map(Bytes::from))
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mode = match durability {
            Durability::Os => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        let writes = batch.checked()?;
        while self.records.tree.sealed_memtable_count() >= 3 || self.records.tree.l0_run_count() >= 28 {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut journaled = self.database.batch().durability(Some(mode));
        for write in writes {
            match write {
                Write::Put(key, record) => journaled.insert(&self.records, key, record),
                Write::Remove(key) => journaled.remove(&self.records, key),
                Write::PutMeta(name, value) => journaled.insert(&self.meta, name, value),
                Write::AddIndex(entry) => journaled.insert(&self.index, entry, []),
                Write::RemoveIndex(entry) => journaled.remove(&self.index, entry),
            }
        }
        Ok(journaled.commit()?)
    }
}

/// An error of another engine.
fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Engine(fjall::Error::Io(io::Error::other(error)))
}

type RedbTable = TableDefinition<'static, &'static [u8], &'static [u8]>;
const RECORDS: RedbTable = TableDefinition::new("records");
const META: RedbTable = TableDefinition::new("meta");
const INDEX: RedbTable = TableDefinition::new("index");

/// A copy-on-write B-tree. It has no commit that survives the end of the process and is not synced: [`Durability::Os`] is `Durability::None`,
/// whose commits are lost with the process.
pub struct Redb {
    database: redb::Database,
    /// The table of records as of the last commit, if it was read since.
    read: RefCell<Option<redb::ReadOnlyTable<&'static [u8], &'static [u8]>>>,
    commits: u32,
}

impl Redb {
    pub fn open(dir: &Path) -> Self {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(CACHE_BYTES + MEMTABLE_BYTES);
        let database = builder.create(dir.join("redb")).expect("the database opens");
        let write = database.begin_write().expect("a transaction begins");
        for table in [RECORDS, META, INDEX] {
            write.open_table(table).expect("the table opens");
        }
        write.commit().expect("the tables are made");
        Self { database, read: RefCell::new(None), commits: 0 }
    }
}

impl Store for Redb {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut read = self.read.borrow_mut();
        let table = match &mut *read {
            Some(table) => table,
            none => none.insert(self.database.begin_read().map_err(failed)?.open_table(RECORDS).map_err(failed)?),
        };
        Ok(table.get(key).map_err(failed)?.map(|record| Bytes::copy_from_slice(record.value())))
    }

    fn scan(&self, _: &[u8], _: Option<&[u8]>) -> Scan<'_> {
        unreachable!("the bench scans nothing")
    }

    fn scan_index(&self, _: &[u8], _: &[u8]) -> IndexScan<'_> {
        unreachable!("the bench scans nothing")
    }

    fn get_meta(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        unreachable!("the bench reads no metadata")
    }

    fn commit(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        *self.read.get_mut() = None;
        self.commits += 1;
        let mut transaction = self.database.begin_write().map_err(failed)?;
        if durability == Durability::Os && !self.commits.is_multiple_of(REDB_DURABLE_EVERY) {
            transaction.set_durability(redb::Durability::None).map_err(failed)?;
        }
        {
            let mut records = transaction.open_table(RECORDS).map_err(failed)?;
            let mut index = None;
            for write in batch.checked()? {
                match write {
                    Write::Put(key, record) => drop(records.insert(&key[..], &record[..]).map_err(failed)?),
                    Write::AddIndex(entry) => {
                        let index = match &mut index {
                            Some(index) => index,
                            none => none.insert(transaction.open_table(INDEX).map_err(failed)?),
                        };
                        index.insert(&entry[..], &[][..]).map_err(failed)?;
                    }
                    write => unreachable!("the bench writes no {write:?}"),
                }
            }
        }
        transaction.commit().map_err(failed)
    }
}

/// Stores nothing: what it costs is the bench itself.
pub struct Nothing;

impl Store for Nothing {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(Some(Bytes::new()))
    }

    fn scan(&self, _: &[u8], _: Option<&[u8]>) -> Scan<'_> {
        Box::new(std::iter::empty())
    }

    fn scan_index(&self, _: &[u8], _: &[u8]) -> IndexScan<'_> {
        Box::new(std::iter::empty())
    }

    fn get_meta(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn commit(&mut self, batch: Batch, _: Durability) -> Result<(), StoreError> {
        batch.checked().map(drop)
    }
}
