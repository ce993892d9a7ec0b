//! A node's data directory: who the node is, and where its shards keep their stores.
//!
//! ```text
//! node-1/
//!   node.json   identity, boot number, the cluster's founding; replaced as a whole
//!   history     the changes to the cluster since then, once there are any; replaced as a whole
//!   epoch       the epoch that the node is in; replaced as a whole
//!   seen        the latest boot that was seen of each peer; replaced as a whole
//!   retired     why the directory must not be served any more, if so
//!   spare       room for replacing these on a full disk
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

/// What is wrong with a data directory.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// There is no node in it.
    #[error("{0} holds no node: give the directory of one, as DIR/node-1 that `cartwheel dev --dir DIR` makes")]
    NoNode(PathBuf),
    /// Another process serves it.
    #[error("{0} is served by another process already: stop that one, or give another directory")]
    InUse(PathBuf),
    /// Another build has written it, in a form that this build does not know.
    #[error("{}", other_format(path, *format, *newest))]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u64,
        /// The newest that this build knows.
        newest: u64,
    },
    /// A file is not what was written.
    #[error("{path} is damaged ({why}): restore it from a copy of this very boot, or replace the node")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        why: String,
    },
    /// It must not be served any more.
    #[error("{dir} must not be served any more: {why}")]
    Retired {
        /// The directory.
        dir: PathBuf,
        /// Why not, and what to do.
        why: String,
    },
    /// Its parts were put together from copies of different times.
    #[error(
        "the stores in {0} have been written to by a later boot than its node.json knows: it was put together from copies of different \
         times. Put the whole directory back as it was, or replace the node"
    )]
    OfTwoTimes(PathBuf),
    /// The node has been started as often as an incarnation allows.
    #[error("{0} has been started 2^24 times, which is all that one incarnation of a node allows: replace the node")]
    OutOfBoots(PathBuf),
    /// The file system refused something.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn other_format(path: &Path, format: u64, newest: u64) -> String {
    let path = path.display();
    if format > newest {
        format!(
            "{path} has format {format}, and this build knows formats up to {newest}: a newer cartwheel has written it, and an older one \
             would misread what it stored; start the newer one"
        )
    } else {
        format!("{path} has format {format}, which this build does not read any more: use the cartwheel that made it")
    }
}

impl DataDirError {
    /// Makes an error of what the system said when it was asked to do `what` to `path`.
    pub(crate) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_path_buf(), source }
    }
}

/// An open data directory. The lock goes with it.
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
    /// If it holds no node, or one that this build does not understand, or another process has it open.
    pub fn open(dir: &Path) -> Result<Self, DataDirError> {
        // The identity is read under the lock, so that two processes cannot both take the same boot number.
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

    /// Makes a note that the directory must not be served any more, of why, and of what to do. Otherwise it would come to a boot that
    /// nobody has seen, if it were only started often enough.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn retire(&self, why: &str) -> Result<(), DataDirError> {
        let path = self.dir.join(RETIRED_FILE);
        atomic_file::replace(&path, why.as_bytes()).map_err(DataDirError::io("write", &path))
    }

    /// The error that says so.
    pub fn retired(&self, why: String) -> DataDirError {
        DataDirError::Retired { dir: self.dir.clone(), why }
    }

    /// Who the node is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The next boot, which draws `drawn` at random and finds the stores at these marks.
    ///
    /// # Errors
    /// If the numbers have run out, or a store has been written to by a boot that the rest of the directory does not know.
    pub fn next_boot(&self, drawn: u64, marks: Vec<Mark>) -> Result<Begun, DataDirError> {
        let boot = self.identity.boot.saturating_add(1);
        if boot > Identity::BOOT_MAX {
            return Err(DataDirError::OutOfBoots(self.dir.clone()));
        }
        if marks.iter().any(|mark| mark.boot >= boot) {
            return Err(DataDirError::OfTwoTimes(self.dir.clone()));
        }
        Ok(Begun { boot, drawn, marks })
    }

    /// Counts the next boot, durably, and returns its number.
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

    /// Whether the last boot has stopped in order and nothing has touched the stores since, which are at these marks.
    pub fn was_stopped(&self, marks: &[Mark]) -> bool {
        self.identity.stopped.as_deref() == Some(marks)
    }

    /// Notes durably which actors this boot goes on with, before it makes any dot.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn go_on_with(&mut self, actors: ActorsSince) -> Result<(), DataDirError> {
        let identity = Identity { actors: Some(actors), ..self.identity.clone() };
        write_identity(&self.dir, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// Notes durably that the boot has stopped in order, when nothing is written any more, and at which marks its stores are.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn stopped(&self, marks: Vec<Mark>) -> Result<(), DataDirError> {
        let identity = read_identity(&self.dir)?;
        write_identity(&self.dir, &Identity { stopped: Some(marks), ..identity })
    }

    /// Where it is noted which version of the protocol all members speak. No boot may begin any more once anything was noted.
    pub fn format_mark(&self) -> FormatMark {
        FormatMark { dir: self.dir.clone(), identity: self.identity.clone() }
    }

    /// Where the history of the cluster's changes is kept.
    pub fn history_file(&self) -> HistoryFile {
        history_file(&self.dir)
    }

    /// Where the node's epoch is kept.
    pub fn epoch_file(&self) -> EpochFile {
        epoch_file(&self.dir)
    }

    /// Where the latest boots of peers are kept.
    pub fn seen_file(&self) -> SeenFile {
        SeenFile::new(self.dir.join(SEEN_FILE))
    }

    /// Where the shard with this number keeps its store.
    pub fn shard_dir(&self, shard: u32) -> PathBuf {
        self.dir.join(format!("shard-{shard}"))
    }
}

/// The mark of a directory that builds which speak only older versions of the protocol must not open it.
#[derive(Clone, Debug)]
pub struct FormatMark {
    dir: PathBuf,
    identity: Identity,
}

impl FormatMark {
    /// What is noted.
    pub const fn all_speak(&self) -> Protocol {
        self.identity.all_speak
    }

    /// Notes durably that all members speak `protocol`, before anything is stored that came with it.
    ///
    /// # Errors
    /// If it cannot be written: then it may have been or not.
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

/// The format that a file of JSON says it has.
fn format_of_json(bytes: &[u8], path: &Path) -> Result<u64, DataDirError> {
    #[derive(serde::Deserialize)]
    struct FormatOnly {
        format: u64,
    }
    let damaged = |error: serde_json::Error| DataDirError::Damaged { path: path.to_path_buf(), why: error.to_string() };
    serde_json::from_slice(bytes).map(|FormatOnly { format }| format).map_err(damaged)
}

/// Where the history of the cluster's changes is kept in `dir`.
pub fn history_file(dir: &Path) -> HistoryFile {
    HistoryFile::new(dir.join(HISTORY_FILE))
}

/// Where the epoch of the node of `dir` is kept.
pub fn epoch_file(dir: &Path) -> EpochFile {
    EpochFile::new(dir.join(EPOCH_FILE))
}

/// Whether `dir` is fit to become a node's directory: it is not there, or holds nothing that a node would miss.
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
        // A log, what is left of a new directory that was not finished, and what is on every new file system.
        let left = ["log", LOCK_FILE, HISTORY_FILE, "history.new", EPOCH_FILE, "epoch.new", "node.json.new"];
        if !left.iter().chain(&[SPARE_FILE, "lost+found"]).any(|known| name == *known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Who the node of `dir` is, whether or not a process serves it.
///
/// # Errors
/// If it holds no node, or one that this build does not understand.
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
