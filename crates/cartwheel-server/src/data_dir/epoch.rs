//! The file that keeps the node's epoch (`cartwheel_core::value::epoch`).

use std::path::PathBuf;
use std::{fs, io};

use cartwheel_core::value::epoch::Epoch;
use serde::{Deserialize, Serialize};

use super::{DataDirError, atomic_file};

/// The format that this build writes.
const FORMAT: u64 = 1;

/// What a node knows of its cluster's epochs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SavedEpoch {
    /// The epoch that the node is in; [`Epoch::UNKNOWN`] for an incarnation that has not learned one.
    pub epoch: Epoch,
    /// An epoch that the cluster had reached when the directory was made.
    pub reached: Epoch,
}

impl SavedEpoch {
    /// The epoch in a new cluster.
    pub const BOOTSTRAPPED: Self = Self { epoch: Epoch::FIRST, reached: Epoch::UNKNOWN };
}

/// A handle to the file.
#[derive(Clone, Debug)]
pub struct EpochFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    epoch: u64,
    reached: u64,
    check: String,
}

impl EpochFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the file; an absent file means that nothing is known.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or has a newer format.
    pub fn load(&self) -> Result<SavedEpoch, DataDirError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SavedEpoch::default()),
            Err(error) => return Err(DataDirError::io("read", &self.path)(error)),
        };
        let damaged = |why: String| DataDirError::Damaged { path: self.path.clone(), why };
        // The format first: a newer one may have other fields.
        let format = super::format_of_json(&bytes, &self.path)?;
        if format != FORMAT {
            return Err(DataDirError::Format { path: self.path.clone(), format, newest: FORMAT });
        }
        let file: File = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let saved = SavedEpoch { epoch: Epoch(file.epoch), reached: Epoch(file.reached) };
        if file.check == check(saved) {
            Ok(saved)
        } else {
            Err(damaged("its checksum does not match its contents".to_owned()))
        }
    }

    /// Replaces the file's contents with `saved`, durably.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, saved: SavedEpoch) -> Result<(), DataDirError> {
        let SavedEpoch { epoch: Epoch(epoch), reached: Epoch(reached) } = saved;
        let file = File { format: FORMAT, epoch, reached, check: check(saved) };
        // Numbers always have a JSON form.
        let bytes = serde_json::to_vec(&file).unwrap_or_default();
        atomic_file::replace(&self.path, &bytes).map_err(DataDirError::io("write", &self.path))
    }
}

fn check(saved: SavedEpoch) -> String {
    blake3::hash(format!("epoch {} {}", saved.epoch, saved.reached).as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_saved_and_damage_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let file = EpochFile::new(dir.path().join("epoch"));
        assert_eq!(file.load().unwrap(), SavedEpoch::default());
        let saved = SavedEpoch { epoch: Epoch(12), reached: Epoch(9) };
        file.save(saved).unwrap();
        assert_eq!(file.load().unwrap(), saved);
        let text = fs::read_to_string(&file.path).unwrap();
        fs::write(&file.path, text.replace("12", "13")).unwrap();
        assert!(file.load().unwrap_err().to_string().contains("damaged"));
    }
}
