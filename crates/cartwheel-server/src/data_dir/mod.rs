//! A node's data directory: its identity, its history files and the stores of its shards.
//!
//! ```text
//! node-1/
//!   node.json   identity, boot number, the cluster's bootstrap; replaced as a whole
//!   history     changes of the cluster since the bootstrap, once there are any; replaced as a whole
//!   epoch       the epoch that the node is in; replaced as a whole
//!   seen        the latest known boot of each peer; replaced as a whole
//!   retired     present if the directory must not be served again; says why
//!   spare       room for replacing these files on a full disk
//!   lock        held by the process that serves the directory
//!   shard-0/    the store of the first shard; and so on
//! ```

mod atomic_file;
mod epoch;
mod history;
mod identity;
pub(crate) mod lineage;
mod seen;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use cartwheel_core::store::record::ActorsSince;
use cartwheel_core::wire::Protocol;

use crate::data_dir::lineage::{Begun, Mark};
use atomic_file::SPARE_FILE;
pub use epoch::{EpochFile, SavedEpoch};
pub use history::HistoryFile;
pub use identity::{ClusterSecret, Identity};
pub use seen::{SeenBoots, SeenFile};

pub(crate) const IDENTITY_FILE: &str = "node.json";
const HISTORY_FILE: &str = "history";
const EPOCH_FILE: &str = "epoch";
const SEEN_FILE: &str = "seen";
const RETIRED_FILE: &str = "retired";
const LOCK_FILE: &str = "lock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It holds no node.
    #[error("{0} holds no node; give a node's directory, for example DIR/node-1 made by `cartwheel dev --dir DIR`")]
    NoNode(PathBuf),
    /// Another process serves it.
    #[error("{0} is in use by another process; stop that process, or give another directory")]
    InUse(PathBuf),
    /// Its format is unknown to this build.
    #[error("{}", other_format(path, *format, *newest))]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
        /// The newest format that this build knows.
        newest: u64,
    },
    /// A file has changed since it was written.
    #[error("{path} is damaged ({why}); restore it from a copy made during this boot, or replace the node")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The evidence.
        why: String,
    },
    /// It must not be served again.
    #[error("{dir} must not be served again: {why}")]
    Retired {
        /// The directory.
        dir: PathBuf,
        /// The reason, and what to do.
        why: String,
    },
    /// Its parts come from copies of different times.
    #[error(
        "the stores in {0} are of a later boot than its node.json: its parts come from copies of different times; restore the whole directory \
        from one copy, or replace the node"
    )]
    MixedCopies(PathBuf),
    /// It has been started as often as an incarnation allows.
    #[error("{0} has been started 2^24 times, the most that one incarnation allows; replace the node")]
    OutOfBoots(PathBuf),
    /// The file system returned an error.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn other_format(path: &Path, format: u64, newest: u64) -> String {
    let path = path.display();
    if format > newest {
        format!(
            "{path} has format {format}, and this build knows formats up to {newest}; start a newer cartwheel, since an older one would misread \
            what a newer one stored"
        )
    } else {
        format!(
            "{path} has format {format}, which this build no longer reads; use the version of cartwheel that made it"
        )
    }
}

impl DataDirError {
    /// Wraps the error of the operation `what` on `path`.
    pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_path_buf(), source }
    }
}

/// An open data directory, which holds its lock.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    identity: Identity,
    _lock: File,
}

impl DataDir {
    /// Makes `dir` the directory of a new node.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(dir: &Path, identity: &Identity) -> Result<(), DataDirError> {
        fs::create_dir_all(dir).map_err(DataDirError::io("create", dir))?;
        write_identity(dir, identity)
    }

    /// Opens the directory of a node, which no other process may have open.
    ///
    /// # Errors
    /// If it holds no node, has an unknown format, or is open in another process.
    pub fn open(dir: &Path) -> Result<Self, DataDirError> {
        // The identity is read under the lock, so that two processes cannot take the same boot number.
        if !dir.join(IDENTITY_FILE).exists() {
            return Err(DataDirError::NoNode(dir.to_path_buf()));
        }
        let path = dir.join(LOCK_FILE);
        let lock = File::create(&path).map_err(DataDirError::io("write", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse(dir.to_path_buf())),
            Err(TryLockError::Error(source)) => return Err(DataDirError::io("lock", &path)(source)),
        }
        match fs::read_to_string(dir.join(RETIRED_FILE)) {
            Ok(why) => return Err(DataDirError::Retired { dir: dir.to_path_buf(), why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DataDirError::io("read", &dir.join(RETIRED_FILE))(error)),
        }
        let identity = read_identity(dir)?;
        atomic_file::keep_room(dir);
        Ok(Self { dir: dir.to_path_buf(), identity, _lock: lock })
    }

    /// Marks the directory as not to be served again, with the reason and what to do. Without the mark, an old copy that is restarted often
    /// enough would reach a boot number that no peer has seen.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn retire(&self, why: &str) -> Result<(), DataDirError> {
        let path = self.dir.join(RETIRED_FILE);
        atomic_file::replace(&path, why.as_bytes()).map_err(DataDirError::io("write", &path))
    }

    /// The error for a directory that is so marked.
    pub fn retired(&self, why: String) -> DataDirError {
        DataDirError::Retired { dir: self.dir.clone(), why }
    }

    /// The node's identity.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The next boot, with the random number `drawn` and these marks of the stores.
    ///
    /// # Errors
    /// If the boot numbers are used up, or a store is of a later boot than the rest of the directory.
    pub fn next_boot(&self, drawn: u64, marks: Vec<Mark>) -> Result<Begun, DataDirError> {
        let boot = self.identity.boot.saturating_add(1);
        if boot > Identity::BOOT_MAX {
            return Err(DataDirError::OutOfBoots(self.dir.clone()));
        }
        if marks.iter().any(|mark| mark.boot >= boot) {
            return Err(DataDirError::MixedCopies(self.dir.clone()));
        }
        Ok(Begun { boot, drawn, marks })
    }

    /// Saves the next boot, durably, and returns its number.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin_boot(&mut self, next: Begun) -> Result<u32, DataDirError> {
        let boot = next.boot;
        let lineage = self.identity.lineage.with(next);
        let identity = Identity { boot, lineage, stopped: None, ..self.identity.clone() };
        write_identity(&self.dir, &identity)?;
        self.identity = identity;
        Ok(boot)
    }

    /// Whether the last boot stopped in order and the stores, which have these marks, are unchanged since.
    pub fn was_stopped(&self, marks: &[Mark]) -> bool {
        self.identity.stopped.as_deref() == Some(marks)
    }

    /// Saves, durably, since which boot the node keeps its actors. It must be called before the boot makes a dot.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_actors(&mut self, actors: ActorsSince) -> Result<(), DataDirError> {
        let identity = Identity { actors: Some(actors), ..self.identity.clone() };
        write_identity(&self.dir, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// Saves, durably, that the boot stopped in order with these marks. It must be called when nothing is written any more.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn stopped(&self, marks: Vec<Mark>) -> Result<(), DataDirError> {
        let identity = read_identity(&self.dir)?;
        write_identity(&self.dir, &Identity { stopped: Some(marks), ..identity })
    }

    /// A handle for raising the directory's format. No boot may begin after it was raised.
    pub fn format_mark(&self) -> FormatMark {
        FormatMark { dir: self.dir.clone(), identity: self.identity.clone() }
    }

    /// The file of the cluster's history.
    pub fn history_file(&self) -> HistoryFile {
        history_file(&self.dir)
    }

    /// The file of the node's epoch.
    pub fn epoch_file(&self) -> EpochFile {
        epoch_file(&self.dir)
    }

    /// The file of the peers' latest boots.
    pub fn seen_file(&self) -> SeenFile {
        SeenFile::new(self.dir.join(SEEN_FILE))
    }

    /// The directory of the store of shard `shard`.
    pub fn shard_dir(&self, shard: u32) -> PathBuf {
        self.dir.join(format!("shard-{shard}"))
    }
}

/// The format of a directory, which keeps builds that speak only older protocols from opening it.
#[derive(Clone, Debug)]
pub struct FormatMark {
    dir: PathBuf,
    identity: Identity,
}

impl FormatMark {
    /// The protocol that all members were last known to speak.
    pub const fn all_speak(&self) -> Protocol {
        self.identity.all_speak
    }

    /// Saves, durably, that all members speak `protocol`. It must be called before anything is stored that needs that version.
    ///
    /// # Errors
    /// If it cannot be written: it then may or may not be saved.
    pub fn raise(&mut self, protocol: Protocol) -> Result<(), DataDirError> {
        let identity = Identity { all_speak: protocol, ..self.identity.clone() };
        write_identity(&self.dir, &identity)?;
        self.identity = identity;
        Ok(())
    }
}

fn write_identity(dir: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let path = dir.join(IDENTITY_FILE);
    atomic_file::replace(&path, &identity.encode()).map_err(DataDirError::io("write", &path))
}

/// The format that a JSON file states.
fn format_of_json(bytes: &[u8], path: &Path) -> Result<u64, DataDirError> {
    #[derive(serde::Deserialize)]
    struct FormatOnly {
        format: u64,
    }
    let damaged = |error: serde_json::Error| DataDirError::Damaged { path: path.to_path_buf(), why: error.to_string() };
    serde_json::from_slice(bytes).map(|FormatOnly { format }| format).map_err(damaged)
}

/// The file of the cluster's history in `dir`.
pub fn history_file(dir: &Path) -> HistoryFile {
    HistoryFile::new(dir.join(HISTORY_FILE))
}

/// The file of the node's epoch in `dir`.
pub fn epoch_file(dir: &Path) -> EpochFile {
    EpochFile::new(dir.join(EPOCH_FILE))
}

/// Whether `dir` can become a node's directory: it is absent, or holds nothing that a node needs.
///
/// # Errors
/// If it cannot be read.
pub fn is_vacant(dir: &Path) -> Result<bool, DataDirError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(DataDirError::io("read", dir)(error)),
    };
    for entry in entries {
        let name = entry.map_err(DataDirError::io("read", dir))?.file_name();
        // A log, the remains of an unfinished new directory, and what every new file system has.
        let left = ["log", LOCK_FILE, HISTORY_FILE, "history.new", EPOCH_FILE, "epoch.new", "node.json.new"];
        if !left.iter().chain(&[SPARE_FILE, "lost+found"]).any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the identity of the node in `dir`, whether or not a process serves it.
///
/// # Errors
/// If it holds no node, or has an unknown format.
pub fn read_identity(dir: &Path) -> Result<Identity, DataDirError> {
    let path = dir.join(IDENTITY_FILE);
    match fs::read(&path) {
        Ok(bytes) => Identity::decode(&bytes, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DataDirError::NoNode(dir.to_path_buf())),
        Err(error) => Err(DataDirError::io("read", &path)(error)),
    }
}

/// Makes a rename within `dir` survive a power failure.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
