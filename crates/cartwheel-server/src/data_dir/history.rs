//! The file that holds the history of the cluster's changes.

use std::path::PathBuf;
use std::{fs, io};

use cartwheel_core::cluster::membership::History;
use cartwheel_core::cluster::membership::{DecodeError, HISTORY_VERSION};

use super::{DataDirError, atomic_file};

const MAGIC: &[u8; 8] = b"cartwhlh";
/// The format of the file that this build writes.
const FORMAT: u8 = 1;
const CHECK_BYTES: usize = 16;

/// A node's copy of the history: none as long as nothing was changed since the founding.
#[derive(Clone, Debug)]
pub struct HistoryFile {
    path: PathBuf,
}

impl HistoryFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The history that the file holds, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or a newer build has written it.
    pub fn load(&self) -> Result<Option<History>, DataDirError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataDirError::io("read", &self.path)(error)),
        };
        let damaged = |why: String| DataDirError::Damaged { path: self.path.clone(), why };
        let begins = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first());
        let (&format, rest) = begins.ok_or_else(|| damaged("it does not begin as it should".to_owned()))?;
        if format != FORMAT {
            return Err(self.other_format(format.into(), FORMAT.into()));
        }
        let (check_found, history) =
            rest.split_at_checked(CHECK_BYTES).ok_or_else(|| damaged("it is cut off".to_owned()))?;
        if check_found != check(history) {
            return Err(damaged("its check does not fit its contents".to_owned()));
        }
        History::decode(history).map(Some).map_err(|error| match error {
            DecodeError::Version(version) => self.other_format(version.into(), HISTORY_VERSION.into()),
            error => damaged(error.to_string()),
        })
    }

    fn other_format(&self, format: u64, newest: u64) -> DataDirError {
        DataDirError::Format { path: self.path.clone(), format, newest }
    }

    /// Puts an encoded history in the place of the one before, durably.
    ///
    /// # Errors
    /// If it cannot be written: then the one before is still there, or this one is.
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
        /// As they are, behind a sound head, and behind a sound check.
        #[test]
        fn no_bytes_make_it_panic_and_hardly_any_are_a_history(noise in prop::collection::vec(any::<u8>(), 0..200)) {
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
    fn what_was_saved_is_loaded_and_no_flipped_bit_is() {
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
