//! The state file, which holds the progress of a load.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::progress::Checkpoint;
use super::{FileFormat, LoadArgs, LoadError};

const VERSION: u32 = 1;
/// The number of leading bytes that identify a file.
const HEAD_BYTES: u64 = 64 << 10;
/// The limit of bytes read, above the size of any state file.
const STATE_BYTES_MAX: u64 = 64 << 10;

/// Identifies a load: the same file, into the same bucket, with the same arguments.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Identity(String);

#[derive(Serialize)]
struct Described<'a> {
    bytes: u64,
    modified_ns: u128,
    head: String,
    bucket: &'a str,
    format: FileFormat,
    key: &'a str,
    value: Option<&'a str>,
    content_type: Option<&'a str>,
    blind: bool,
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    load: Identity,
    #[serde(rename = "place")]
    checkpoint: Checkpoint,
}

impl Identity {
    /// Identifies the load of a file by its size, modification time and first bytes, and by the arguments.
    pub(super) fn of_file(args: &LoadArgs, format: FileFormat) -> io::Result<Self> {
        let mut file = File::open(&args.file)?;
        let metadata = file.metadata()?;
        let mut head = Vec::new();
        (&mut file).take(HEAD_BYTES).read_to_end(&mut head)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let described = Described {
            bytes: metadata.len(),
            modified_ns: modified.as_nanos(),
            head: blake3::hash(&head).to_hex().to_string(),
            bucket: &args.bucket,
            format,
            key: args.key.as_deref().unwrap_or_default(),
            value: args.value.as_deref(),
            content_type: args.content_type.as_deref(),
            blind: args.blind,
        };
        Ok(Self(blake3::hash(&serde_json::to_vec(&described)?).to_hex().to_string()))
    }

    /// A random identity: a load of standard input equals no other load.
    pub(super) fn of_stream() -> Result<Self, LoadError> {
        Ok(Self(format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?)))
    }

    /// The idempotency key of the record that ends at `end`. It is the same for each attempt.
    pub(super) fn idempotency_key(&self, end: u64) -> String {
        format!("load-{}", &blake3::hash(format!("{} {end}", self.0).as_bytes()).to_hex()[..32])
    }
}

/// The state file of a load, locked against other processes.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    load: Identity,
    _lock: Lock,
}

impl StateFile {
    /// Locks the state file at `path` for `load`.
    pub(super) fn new(path: &Path, load: Identity) -> Result<Self, LoadError> {
        let cannot = |error| LoadError::State(path.to_path_buf(), error);
        let path = std::path::absolute(path).map_err(cannot)?;
        let Some(lock) = Lock::take(&path).map_err(cannot)? else { return Err(LoadError::StateLocked(path)) };
        Ok(Self { path, load, _lock: lock })
    }

    /// Reads the progress; none if the load has not begun.
    pub(super) fn read(&self) -> Result<Option<Checkpoint>, LoadError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LoadError::State(self.path.clone(), error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(STATE_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|error| LoadError::State(self.path.clone(), error))?;
        match serde_json::from_slice::<Form>(&bytes) {
            Ok(form) if form.version == VERSION && form.load == self.load => Ok(Some(form.checkpoint)),
            _ => Err(LoadError::OtherLoad(self.path.clone())),
        }
    }

    pub(super) fn write(&self, checkpoint: Checkpoint) -> Result<(), LoadError> {
        let form = Form { version: VERSION, load: self.load.clone(), checkpoint };
        let written = serde_json::to_vec(&form).map_err(io::Error::from);
        written
            .and_then(|bytes| replace(&self.path, &bytes))
            .map_err(|error| LoadError::State(self.path.clone(), error))
    }

    /// Removes the state file, after the load is complete.
    pub(super) fn remove(&self) -> Result<(), LoadError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LoadError::State(self.path.clone(), error)),
            _ => Ok(()),
        }
    }
}

/// Replaces the file at `path` with `bytes` atomically: a crash leaves the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

/// A locked file beside the state file. The state file itself cannot carry the lock, since each write replaces it. The operating system
/// releases the lock when the process ends, even after a crash.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the lock of the state file at `path`; none if another process holds it.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut name = path.to_path_buf().into_os_string();
        name.push(".lock");
        let path = PathBuf::from(name);
        loop {
            let file = File::options().create(true).append(true).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Another load that just ended may have removed the file after it was opened and before it was locked.
            let lock = Self { path: path.clone(), file };
            if lock.is_there()? {
                return Ok(Some(lock));
            }
        }
    }

    /// Whether the path still names the locked file.
    fn is_there(&self) -> io::Result<bool> {
        let (own, found) = (self.file.metadata()?, fs::metadata(&self.path));
        match found {
            Ok(found) => Ok((own.dev(), own.ino()) == (found.dev(), found.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If the path names another file, that file belongs to another lock.
        if self.is_there().unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Arbitrary bytes, and a valid file with some of them inserted.
        #[test]
        fn arbitrary_bytes_are_never_taken_for_a_checkpoint(noise in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>()) {
            let dir = tempfile::tempdir().unwrap();
            let state = state_file(dir.path(), "a");
            let checkpoint = Checkpoint { offset: 10, line: 2, stored: 1, skipped: 0 };
            state.write(checkpoint).unwrap();
            let mut bytes = fs::read(&state.path).unwrap();
            let at = at.index(bytes.len());
            bytes.splice(at..at, noise.iter().copied());
            for bytes in [&bytes, &noise] {
                fs::write(&state.path, bytes).unwrap();
                match state.read() {
                    // Inserted digits or spaces can leave the file valid.
                    Ok(Some(_)) => prop_assert!(serde_json::from_slice::<Form>(bytes).is_ok()),
                    Ok(None) => prop_assert!(false, "there is a file"),
                    Err(error) => prop_assert!(matches!(error, LoadError::OtherLoad(_))),
                }
            }
        }
    }

    fn state_file(dir: &Path, load: &str) -> StateFile {
        StateFile::new(&dir.join("state"), Identity(load.to_owned())).unwrap()
    }

    #[test]
    fn the_state_of_a_load_is_found_again_and_refused_to_another_load() {
        let dir = tempfile::tempdir().unwrap();
        let state = state_file(dir.path(), "a");
        assert_eq!(state.read().unwrap(), None);
        let checkpoint = Checkpoint { offset: 10, line: 2, stored: 1, skipped: 0 };
        state.write(checkpoint).unwrap();
        assert_eq!(state.read().unwrap(), Some(checkpoint));
        let at_once = StateFile::new(&dir.path().join("state"), Identity("a".to_owned()));
        assert!(matches!(at_once, Err(LoadError::StateLocked(_))));
        drop(state);
        assert!(matches!(state_file(dir.path(), "b").read(), Err(LoadError::OtherLoad(_))));
        let state = state_file(dir.path(), "a");
        fs::write(dir.path().join("state"), b"{").unwrap();
        assert!(matches!(state.read(), Err(LoadError::OtherLoad(_))));
        state.remove().unwrap();
        state.remove().unwrap();
        assert_eq!(state.read().unwrap(), None);
        drop(state);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_record_has_one_idempotency_key_in_a_load() {
        let (a, b) = (Identity("a".to_owned()), Identity("b".to_owned()));
        assert_eq!(a.idempotency_key(10), a.idempotency_key(10));
        assert_ne!(a.idempotency_key(10), a.idempotency_key(11));
        assert_ne!(a.idempotency_key(10), b.idempotency_key(10));
    }
}
