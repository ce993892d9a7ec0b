//! The file in which a node remembers the latest boot that it has seen of each life of its peers.
//!
//! A data directory that was put back from a copy says a boot that has been: it must not serve, for it would make dots anew that its
//! later boots have made. Only its peers can know.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use cartwheel_core::dot::{Life, NodeId};
use serde::{Deserialize, Serialize};

use super::{DataDirError, atomic_file};

/// The format of the file that this build writes.
const FORMAT: u64 = 1;

/// The latest boots by node and life.
pub type SeenBoots = BTreeMap<(NodeId, Life), u32>;

/// Where they are kept.
#[derive(Clone, Debug)]
pub struct SeenFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    check: String,
    seen: Vec<SeenForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenForm {
    node: String,
    life: String,
    boot: u32,
}

impl SeenFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the file holds; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or a newer build has written it.
    pub fn load(&self) -> Result<SeenBoots, DataDirError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SeenBoots::new()),
            Err(error) => return Err(DataDirError::io("read", &self.path)(error)),
        };
        let damaged = |why: String| DataDirError::Damaged { path: self.path.clone(), why };
        // The format first: a newer one may have other fields.
        let format = super::format_of_json(&bytes, &self.path)?;
        if format != FORMAT {
            return Err(DataDirError::Format { path: self.path.clone(), format, newest: FORMAT });
        }
        let file: File = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if file.check != check(&file.seen) {
            return Err(damaged("its check does not fit its contents".to_owned()));
        }
        let parsed = file.seen.iter().map(SeenForm::parse).collect::<Option<_>>();
        parsed.ok_or_else(|| damaged("a field does not have its form".to_owned()))
    }

    /// Puts `boots` in the place of what the file holds, durably.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, boots: &SeenBoots) -> Result<(), DataDirError> {
        let form = |(&(node, life), &boot): (&(NodeId, Life), &u32)| SeenForm {
            node: format!("{:016x}", node.get()),
            life: format!("{:016x}", life.0),
            boot,
        };
        let seen: Vec<SeenForm> = boots.iter().map(form).collect();
        let file = File { format: FORMAT, check: check(&seen), seen };
        // Text and numbers always have a JSON form.
        let bytes = serde_json::to_vec(&file).unwrap_or_default();
        atomic_file::replace(&self.path, &bytes).map_err(DataDirError::io("write", &self.path))
    }
}

impl SeenForm {
    fn parse(&self) -> Option<((NodeId, Life), u32)> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        Some(((NodeId::new(number(&self.node)?), Life(number(&self.life)?)), self.boot))
    }
}

fn check(seen: &[SeenForm]) -> String {
    let mut hasher = blake3::Hasher::new();
    for SeenForm { node, life, boot } in seen {
        for field in [node.as_str(), life.as_str(), &boot.to_string()] {
            hasher.update(&(field.len() as u64).to_be_bytes());
            hasher.update(field.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(dir: &tempfile::TempDir) -> SeenFile {
        SeenFile::new(dir.path().join("seen"))
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("seen"), &noise).unwrap();
            prop_assert!(file(&dir).load().is_err());
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_no_other_boot_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        assert_eq!(file.load().unwrap(), SeenBoots::new());
        let boots = SeenBoots::from([((NodeId::new(1), Life(u64::MAX)), 7), ((NodeId::new(u64::MAX), Life(0)), 1)]);
        file.save(&boots).unwrap();
        assert_eq!(file.load().unwrap(), boots);
        let whole = fs::read(&file.path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&file.path, bytes).unwrap();
            assert!(file.load().map_or(true, |read| read == boots), "byte {at}");
            fs::write(&file.path, &whole[..at]).unwrap();
            assert!(file.load().is_err(), "cut off at {at}");
        }
    }
}
