//! Commands to a node's store, and their results.

use bytes::Bytes;

/// The id of a store command, assigned by the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoreId(pub u64);

/// A command to the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreCommand {
    /// Read the record stored under a key; answered by [`StoreResult::Read`].
    Read {
        /// [`Key::storage_key`](crate::value::key::Key::storage_key).
        storage_key: Bytes,
    },
    /// Store a record or remove it, and change the index, all or nothing; answered by [`StoreResult::Written`].
    Write {
        /// [`Key::storage_key`](crate::value::key::Key::storage_key).
        storage_key: Bytes,
        /// The bytes to store; `None` removes the record.
        record: Option<Bytes>,
        /// Changes of the index that become durable with the record.
        index: Vec<IndexChange>,
        /// Whether the result must mean that the write survives a power failure.
        sync: bool,
    },
    /// Read records in the order of their keys, from a key on; answered by [`StoreResult::Scanned`].
    Scan {
        /// The first key, included.
        from: Bytes,
        /// The end, excluded; `None` reads on to the end.
        upto: Option<Bytes>,
        /// The most records, and the most bytes of them, to read. A record larger than that is read alone.
        at_most: ScanLimit,
    },
    /// Read the index in order, from an entry on; answered by [`StoreResult::Listed`].
    ScanIndex {
        /// The first entry, included.
        from: Bytes,
        /// The end, excluded.
        upto: Bytes,
        /// The most entries to read.
        entries_max: usize,
    },
    /// Store a value under a name, synced; answered by [`StoreResult::Written`].
    Remember {
        /// The name.
        name: Bytes,
        /// The value. An empty value is equivalent to none.
        value: Bytes,
    },
    /// Read the value of a name; answered by [`StoreResult::Read`].
    Recall {
        /// The name.
        name: Bytes,
    },
}

/// A change of the index: an ordered set of byte strings beside the records, by which a node finds records that need work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IndexChange {
    /// Adds this entry.
    Add(Bytes),
    /// Removes this entry.
    Remove(Bytes),
}

/// The limit of one scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanLimit {
    /// Records.
    pub records: usize,
    /// Bytes of records.
    pub bytes: usize,
}

/// The result of a scan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scanned {
    /// Storage keys and records, in order.
    pub records: Vec<(Bytes, Bytes)>,
    /// The storage keys in between whose records the store found damaged.
    pub damaged: Vec<Bytes>,
    /// Whether the range ends here.
    pub is_all: bool,
}

impl Scanned {
    /// Where the range continues; `None` at its end.
    pub fn next(&self) -> Option<Bytes> {
        let last = self.records.last().map(|(key, _)| key).max(self.damaged.last());
        let after = |last: &Bytes| [last.as_ref(), &[0]].concat().into();
        if self.is_all { None } else { last.map(after) }
    }
}

/// The result of a store command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreResult {
    /// The stored bytes, if there are any.
    Read(Result<Option<Bytes>, ReadFailed>),
    /// The records that were found.
    Scanned(Result<Scanned, ReadFailed>),
    /// The entries of the index, in order.
    Listed(Result<Vec<Bytes>, ReadFailed>),
    /// The write is stored, and synced if the command says so.
    Written(Result<(), WriteFailed>),
}

/// Why the store could not read a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFailed {
    /// The store could not be read. A later read may succeed.
    Unreadable,
    /// The stored record is damaged. It is lost, like a record whose own checksum does not match.
    Damaged,
}

/// Why the store did not carry out a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFailed {
    /// It may have been stored or not. Either way the outcome must be final: what a read returns afterwards survives a power failure.
    Uncertain,
    /// The disk is full. Nothing was stored, and nothing of the write will appear.
    DiskFull,
}
