//! The state file of a restore: the objects that are restored, one a line. To restore one again is harmless, so it is not synced.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::BackupError;

/// What is restored, and the file that remembers it, if there is one.
pub(super) struct RestoreState {
    done: BTreeSet<String>,
    file: Option<(File, PathBuf)>,
}

impl RestoreState {
    /// Opens the state file of the restore of a backup into a cluster.
    ///
    /// # Errors
    /// If it belongs to another restore, or cannot be read or written.
    pub(super) fn open(path: Option<&Path>, backup: &str, cluster: &str) -> Result<Self, BackupError> {
        let Some(path) = path else { return Ok(Self { done: BTreeSet::new(), file: None }) };
        let failed = |error: io::Error| BackupError::StateFile(path.to_path_buf(), error.to_string());
        let head = format!("restore of {backup} into {cluster}");
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
        let mut lines = text.lines();
        match lines.next() {
            None => writeln!(file, "{head}").map_err(failed)?,
            Some(first) if first == head => {}
            Some(_) => {
                let why = "it belongs to another restore: choose another file".to_owned();
                return Err(BackupError::StateFile(path.to_path_buf(), why));
            }
        }
        let done = lines.map(str::to_owned).collect();
        Ok(Self { done, file: Some((file, path.to_path_buf())) })
    }

    /// Whether an object is restored.
    pub(super) fn has(&self, id: &str) -> bool {
        self.done.contains(id)
    }

    /// Records that an object is restored.
    pub(super) fn add(&mut self, id: &str) -> Result<(), BackupError> {
        self.done.insert(id.to_owned());
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        writeln!(file, "{id}").map_err(|error| BackupError::StateFile(path.clone(), error.to_string()))
    }
}
