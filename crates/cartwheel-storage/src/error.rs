use std::path::PathBuf;

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
    Engine(#[from] fjall::Error),
    /// An earlier commit failed, and what the medium holds is uncertain until the store is opened again.
    #[error("an earlier commit failed, so the store takes no more writes: check the disk, then restart the node")]
    Poisoned,
}
