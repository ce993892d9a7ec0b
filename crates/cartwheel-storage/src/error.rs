use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::KEY_BYTES_MAX;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A key has this many bytes.
    #[error("a key of {0} bytes cannot be stored: it must have 1 to {KEY_BYTES_MAX}")]
    KeyLength(usize),
    /// Another process has the store open.
    #[error("{0} is in use by another process: stop that one first")]
    InUse(PathBuf),
    /// The directory holds no store that this build can open.
    #[error("the store in {dir} cannot be opened: {source}")]
    Open {
        /// Where the store is.
        dir: PathBuf,
        /// What the storage engine says.
        source: fjall::Error,
    },
    /// The medium failed.
    #[error("the storage engine failed: {0}")]
    Engine(fjall::Error),
    /// What the medium returned is not what was written there.
    #[error("the files of the store are damaged: {0}")]
    Damaged(fjall::Error),
    /// The record of this key is damaged; a scan goes on behind it.
    #[error("a record in the files of the store is damaged: {1}")]
    DamagedRecord(Bytes, fjall::Error),
    /// An earlier commit or the engine's own work in the background failed, and the store takes nothing until it is opened again.
    #[error("the storage engine stopped after a failure, which the log has told of: it must be opened again")]
    Poisoned,
    /// The engine has not written out for so long what was committed before. Nothing of this commit was begun, and the store must be opened
    /// again.
    #[error(
        "the storage engine has written nothing out for {} s, and must be opened again: the disk is too slow, or has failed",
        .0.as_secs()
    )]
    Stalled(Duration),
    /// The journal could not be read and written again.
    #[error("the journals in {dir} cannot be written again: {source}")]
    Journal {
        /// Where the store is.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl StoreError {
    /// Why an entry of a scan could not be read, of which the key may be known.
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

/// Whether the engine found by its own checksums and forms that a file is not as it was written, rather than that the disk does
/// not answer. A file that ends too soon is damaged too.
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
