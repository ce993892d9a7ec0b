//! A thread that reads large records for a shard.
//!
//! Reading and checking 16 MiB takes milliseconds, and many times that on a busy machine. Requests for other keys would wait as long, once
//! for each turn that they need. The thread reads one record at a time, so that no more of them are in memory than the shard has asked for
//! and can take in.

use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use cartwheel_core::store::command::{ReadFailed, StoreId};
use cartwheel_storage::Reader;
use tracing::warn;

use super::disk::unread;
use super::shared::Shared;
use crate::os::priority;

/// The result of a read.
pub(super) type Read = Result<Option<Bytes>, ReadFailed>;

/// The store for reads on another thread, while it is open.
pub(super) type SharedReader = Shared<dyn Reader>;

impl SharedReader {
    fn read(&self, storage_key: &[u8]) -> Read {
        let reader = self.lock();
        let reader = reader.as_ref().ok_or(ReadFailed::Unreadable)?;
        reader.get(storage_key).map_err(|error| unread("record", &error))
    }
}

/// A handle to such a thread. The thread ends when this is dropped.
pub(super) struct ReaderThread {
    requests: mpsc::Sender<(StoreId, Bytes)>,
    /// The record being read.
    reading: Option<(StoreId, Bytes)>,
}

impl ReaderThread {
    /// Starts a thread for the shard with this index, which calls `done` after each read. None if the store cannot be read on another thread, or
    /// the system cannot start one; the shard then reads everything itself.
    pub(super) fn start(
        index: u32,
        shared_reader: SharedReader,
        done: impl Fn(StoreId, Read) + Send + 'static,
    ) -> Option<Self> {
        if !shared_reader.is_open() {
            return None;
        }
        let (requests, requested) = mpsc::channel::<(StoreId, Bytes)>();
        let body = move || {
            priority::yield_to_others();
            for (id, storage_key) in requested {
                done(id, shared_reader.read(&storage_key));
            }
        };
        match thread::Builder::new().name(format!("reader-{index}")).spawn(body) {
            Ok(_) => Some(Self { requests, reading: None }),
            Err(error) => {
                warn!(%error, "cannot start the thread for large records; they are read between requests, which wait");
                None
            }
        }
    }

    /// Whether it can take a request.
    pub(super) const fn is_free(&self) -> bool {
        self.reading.is_none()
    }

    /// Requests a record. The thread must be free.
    pub(super) fn request(&mut self, id: StoreId, storage_key: Bytes) {
        // The thread lives as long as this.
        let _ = self.requests.send((id, storage_key.clone()));
        self.reading = Some((id, storage_key));
    }

    /// Records that the requested record was read.
    pub(super) fn has_read(&mut self) {
        self.reading = None;
    }

    /// The requested record, if it was not read yet.
    pub(super) fn into_reading(self) -> Option<(StoreId, Bytes)> {
        self.reading
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::time::Duration;

    use cartwheel_core::value::time::Instant;
    use cartwheel_storage::{
        Batch, Durability, FjallOptions, FjallStore, IndexScan, MemoryStore, Scan, Store, StoreError,
    };

    use super::*;
    use crate::shard::disk::{Condition, Disk};
    use crate::shard::reserve::Reserve;

    /// Completes a read on request.
    struct Gate(Mutex<mpsc::Receiver<()>>);

    impl Reader for Gate {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.0.lock().unwrap().recv().unwrap();
            Ok(Some(Bytes::copy_from_slice(key)))
        }
    }

    fn gate() -> (mpsc::Sender<()>, SharedReader) {
        let ((open, gate), shared_reader) = (mpsc::channel(), SharedReader::default());
        shared_reader.open(Some(Box::new(Gate(Mutex::new(gate)))));
        (open, shared_reader)
    }

    #[test]
    fn a_requested_record_is_reported() {
        let ((open, shared_reader), (report, done_reads)) = (gate(), mpsc::channel());
        let report = move |id, read| report.send((id, read)).unwrap();
        let mut thread = ReaderThread::start(0, shared_reader, report).unwrap();
        assert!(thread.is_free());
        thread.request(StoreId(7), Bytes::from_static(b"k"));
        assert!(!thread.is_free() && done_reads.try_recv().is_err());
        open.send(()).unwrap();
        assert_eq!(done_reads.recv().unwrap(), (StoreId(7), Ok(Some(Bytes::from_static(b"k")))));
        thread.has_read();
        assert!(thread.is_free());
        thread.request(StoreId(8), Bytes::from_static(b"k"));
        assert_eq!(thread.into_reading(), Some((StoreId(8), Bytes::from_static(b"k"))));
    }

    #[test]
    fn closing_waits_for_the_read_under_way_and_prevents_others() {
        let ((open, shared_reader), (report, done_reads)) = (gate(), mpsc::channel());
        let reads = shared_reader.clone();
        let reading = thread::spawn(move || {
            report.send(()).unwrap();
            reads.read(b"k")
        });
        done_reads.recv().unwrap();
        // The thread reads by now, or will find the store closed.
        thread::sleep(Duration::from_millis(20));
        let closes = shared_reader.clone();
        let closing = thread::spawn(move || closes.close());
        open.send(()).unwrap();
        closing.join().unwrap();
        assert!([Ok(Some(Bytes::from_static(b"k"))), Err(ReadFailed::Unreadable)].contains(&reading.join().unwrap()));
        assert_eq!(shared_reader.read(b"k"), Err(ReadFailed::Unreadable));
        assert!(!shared_reader.is_open());
    }

    #[test]
    fn a_store_without_a_reader_gets_no_thread() {
        let disk = Disk::of_memory(Box::<MemoryStore>::default());
        assert!(ReaderThread::start(0, disk.shared_reader(), |_, _| {}).is_none());
    }

    /// A store whose commits fail.
    struct Failing(FjallStore);

    impl Store for Failing {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.0.get(key)
        }

        fn scan(&self, start: &[u8], end: Option<&[u8]>) -> Scan<'_> {
            self.0.scan(start, end)
        }

        fn scan_index(&self, start: &[u8], end: &[u8]) -> IndexScan<'_> {
            self.0.scan_index(start, end)
        }

        fn get_meta(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.0.get_meta(name)
        }

        fn reader(&self) -> Option<Box<dyn Reader>> {
            self.0.reader()
        }

        fn commit(&mut self, _: Batch, _: Durability) -> Result<(), StoreError> {
            Err(StoreError::Journal { dir: "here".into(), source: std::io::Error::other("broken") })
        }
    }

    #[test]
    fn a_failed_store_is_reopened_while_others_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = |dir: &Path| FjallStore::open(dir, FjallOptions::default());
        let mut store = open(dir.path()).unwrap();
        let mut batch = Batch::new();
        batch.put(Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        store.commit(batch, Durability::Synced).unwrap();
        let path = dir.path().to_path_buf();
        let reopen = move || Ok(Box::new(open(&path)?) as Box<dyn Store>);
        let mut disk = Disk::new(Box::new(Failing(store)), Box::new(reopen), Reserve::none());
        let shared_reader = disk.shared_reader();
        let held = Ok(Some(Bytes::from_static(b"v")));
        assert_eq!(shared_reader.read(b"k"), held);
        disk.commit(Batch::new(), Durability::Synced, Instant::default()).unwrap_err();
        assert_eq!((disk.condition(), shared_reader.read(b"k")), (Condition::Failed, Err(ReadFailed::Unreadable)));
        disk.tick(disk.wake_at().unwrap());
        assert_eq!((disk.condition(), shared_reader.read(b"k")), (Condition::Good, held));
        disk.close(Batch::new());
        assert_eq!(shared_reader.read(b"k"), Err(ReadFailed::Unreadable));
    }
}
