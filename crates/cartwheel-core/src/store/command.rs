//! The commands that a node gives to its store, and how they end.

use bytes::Bytes;

/// A store command, as the node numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoreId(pub u64);

/// What a node asks of its store.
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
        /// The bytes to be stored; none if nothing is to be there any more.
        record: Option<Bytes>,
        /// What else changes with it.
        index: Vec<IndexChange>,
        /// Whether the answer is to say that it survives a power failure.
        sync: bool,
    },
    /// Read the records from a key on, in the order of their keys; answered by [`StoreResult::Scanned`].
    Scan {
        /// Where to begin, itself included.
        from: Bytes,
        /// Where to end, left out; none if all that follow are wanted.
        upto: Option<Bytes>,
        /// How many records and how many bytes of them to read at most; of records larger than that, one.
        at_most: ScanLimit,
    },
    /// Read the index from an entry on, in order; answered by [`StoreResult::Listed`].
    ScanIndex {
        /// Where to begin, itself included.
        from: Bytes,
        /// Where to end, left out.
        upto: Bytes,
        /// How many entries to read at most.
        entries_max: usize,
    },
    /// Keep a value under a name, synced; answered by [`StoreResult::Written`].
    Remember {
        /// The name.
        name: Bytes,
        /// The value; an empty one is as good as none.
        value: Bytes,
    },
    /// Read what is kept under a name; answered by [`StoreResult::Read`].
    Recall {
        /// The name.
        name: Bytes,
    },
}

/// A change of the index: an ordered set of byte strings beside the records, by which a node finds records that it owes something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IndexChange {
    /// This entry is to be there.
    Add(Bytes),
    /// It is not.
    Remove(Bytes),
}

/// How much one scan reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanLimit {
    /// Records.
    pub records: usize,
    /// Bytes of records.
    pub bytes: usize,
}

/// What a scan has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scanned {
    /// Storage keys and records, in order.
    pub records: Vec<(Bytes, Bytes)>,
    /// The storage keys in between whose records the store finds damaged.
    pub damaged: Vec<Bytes>,
    /// Whether nothing follows in the range.
    pub is_all: bool,
}

impl Scanned {
    /// Where the range goes on; none if nothing follows.
    pub fn next(&self) -> Option<Bytes> {
        let last = self.records.last().map(|(key, _)| key).max(self.damaged.last());
        let after = |last: &Bytes| [last.as_ref(), &[0]].concat().into();
        if self.is_all { None } else { last.map(after) }
    }
}

/// How a store command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreResult {
    /// The bytes that were stored, if any were.
    Read(Result<Option<Bytes>, ReadFailed>),
    /// The records that were found.
    Scanned(Result<Scanned, ReadFailed>),
    /// The entries of the index that were found, in order.
    Listed(Result<Vec<Bytes>, ReadFailed>),
    /// It is stored, and synced if that was asked.
    Written(Result<(), WriteFailed>),
}

/// Why the store could not read a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFailed {
    /// The store does not answer. What it holds may be whole, so a later read may succeed.
    Unreadable,
    /// A record was there and is not what was stored: it is lost, as one whose own checksum does not fit.
    Damaged,
}

/// Why the store did not carry out a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFailed {
    /// It may have been stored or not. Whichever it is must stay so: what a read returns after it has to survive a power
    /// failure.
    Uncertain,
    /// There is no room. Nothing was stored, and nothing of it will be.
    DiskFull,
}
