use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::KEY_BYTES_MAX;

/// Why an operation of a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A key is empty or too long; it has this many bytes.
    #[error("a key of {0} bytes cannot be stored: the length must be 1 to {KEY_BYTES_MAX}")]
    KeyLength(usize),
    /// Another process has the store open.
    #[error("{0} is in use by another process: stop that process first")]
    InUse(PathBuf),
    /// The directory holds no store that this build can open.
    #[error("the store in {dir} cannot be opened: {source}")]
    Open {
        /// The store's directory.
        dir: PathBuf,
        /// The storage engine's error.
        source: fjall::Error,
    },
    /// The disk or the storage engine failed.
    #[error("the storage engine failed: {0}")]
    Engine(fjall::Error),
    /// The disk returned other bytes than were written.
    #[error("the files of the store are damaged: {0}")]
    Damaged(fjall::Error),
    /// The record of this key is damaged; a scan continues after it.
    #[error("a record in the files of the store is damaged: {1}")]
    DamagedRecord(Bytes, fjall::Error),
    /// An earlier commit or the engine's background work failed. The store takes no writes until it is opened again.
    #[error("the storage engine stopped after an earlier failure (see the log): the store must be opened again")]
    Poisoned,
    /// For this long the engine has not flushed what was committed before. This commit was not begun, and the store must be opened again.
    #[error(
        "the storage engine has flushed nothing for {} s, and the store must be opened again: the disk is too slow or has failed",
        .0.as_secs()
    )]
    Stalled(Duration),
    /// The journals could not be rewritten.
    #[error("cannot rewrite the journals in {dir}: {source}")]
    Journal {
        /// The store's directory.
        dir: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

impl StoreError {
    /// The error of an entry that a scan could not read. Its key may be known.
    pub(crate) fn of_entry(key: Option<Bytes>, error: fjall::Error) -> Self {
        match key {
            Some(key) if is_damage(&error) => Self::DamagedRecord(key, error),
            _ => error.into(),
        }
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Poisoned => Self::Poisoned,
            error if is_damage(&error) => Self::Damaged(error),
            error => Self::Engine(error),
        }
    }
}

/// Whether the engine found, by its checksums and formats, that a file differs from what was written; other errors mean that the disk does not
/// respond. A file that ends too soon counts as damaged.
fn is_damage(error: &fjall::Error) -> bool {
    use fjall::{Error, LsmError};
    let is_cut = |error: &io::Error| matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData);
    match error {
        Error::Decompress(_) | Error::InvalidTrailer | Error::InvalidTag(_) => true,
        Error::Io(error) | Error::Storage(LsmError::Io(error)) => is_cut(error),
        Error::Storage(error) => matches!(
            error,
            LsmError::ChecksumMismatch { .. }
                | LsmError::Decompress(_)
                | LsmError::InvalidTag(_)
                | LsmError::InvalidTrailer
                | LsmError::InvalidHeader(_)
                | LsmError::Utf8(_)
        ),
        _ => false,
    }
}
