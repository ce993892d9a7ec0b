//! The file that keeps the history of the cluster's changes.

use std::path::PathBuf;
use std::{fs, io};

use cartwheel_core::cluster::membership::History;
use cartwheel_core::cluster::membership::{DecodeError, HISTORY_VERSION};

use super::{DataDirError, atomic_file};

const MAGIC: &[u8; 8] = b"cartwhlh";
/// The format that this build writes.
const FORMAT: u8 = 1;
const CHECK_BYTES: usize = 16;

/// A node's copy of the history. The file is absent until something changes after the bootstrap.
#[derive(Clone, Debug)]
pub struct HistoryFile {
    path: PathBuf,
}

impl HistoryFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the history; none if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or has a newer format.
    pub fn load(&self) -> Result<Option<History>, DataDirError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataDirError::io("read", &self.path)(error)),
        };
        let damaged = |why: String| DataDirError::Damaged { path: self.path.clone(), why };
        let begins = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first());
        let (&format, rest) = begins.ok_or_else(|| damaged("it does not begin with its format".to_owned()))?;
        if format != FORMAT {
            return Err(self.other_format(format.into(), FORMAT.into()));
        }
        let (check_found, history) =
            rest.split_at_checked(CHECK_BYTES).ok_or_else(|| damaged("it is cut off".to_owned()))?;
        if check_found != check(history) {
            return Err(damaged("its checksum does not match its contents".to_owned()));
        }
        History::decode(history).map(Some).map_err(|error| match error {
            DecodeError::Version(version) => self.other_format(version.into(), HISTORY_VERSION.into()),
            error => damaged(error.to_string()),
        })
    }

    fn other_format(&self, format: u64, newest: u64) -> DataDirError {
        DataDirError::Format { path: self.path.clone(), format, newest }
    }

    /// Replaces the file with an encoded history, durably.
    ///
    /// # Errors
    /// If the file cannot be written: it then has the old or the new contents.
    pub fn save(&self, history: &[u8]) -> Result<(), DataDirError> {
        let bytes = [&MAGIC[..], &[FORMAT], &check(history), history].concat();
        atomic_file::replace(&self.path, &bytes).map_err(DataDirError::io("write", &self.path))
    }
}

fn check(history: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&blake3::hash(history).as_bytes()[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Raw, behind a valid header, and behind a valid checksum.
        #[test]
        fn any_bytes_load_or_fail_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let file = HistoryFile::new(dir.path().join("history"));
            let format = [FORMAT];
            for head in [&[][..], &MAGIC[..], &[&MAGIC[..], &format].concat()] {
                fs::write(&file.path, [head, &noise].concat()).unwrap();
                prop_assert!(file.load().is_err());
            }
            file.save(&noise).unwrap();
            if let Ok(Some(read)) = file.load() {
                prop_assert_eq!(History::decode(&noise).unwrap(), read);
            }
        }
    }

    #[test]
    fn a_saved_history_loads_and_a_flipped_bit_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let file = HistoryFile::new(dir.path().join("history"));
        assert_eq!(file.load().unwrap(), None);
        let history = History::new();
        file.save(&history.encode()).unwrap();
        assert_eq!(file.load().unwrap(), Some(history));
        let whole = fs::read(&file.path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&file.path, bytes).unwrap();
            assert!(file.load().is_err(), "byte {at}");
            fs::write(&file.path, &whole[..at]).unwrap();
            assert!(file.load().is_err(), "cut off at {at}");
        }
    }
}
