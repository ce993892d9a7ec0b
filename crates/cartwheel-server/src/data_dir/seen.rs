//! The file that keeps how far each incarnation of a peer has come ([`crate::data_dir::lineage`]).
//!
//! A data directory that was restored from a copy must not be served: it lacks writes and promises that it acknowledged. Only its peers can
//! detect this.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use cartwheel_core::value::dot::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use super::{DataDirError, atomic_file};
use crate::data_dir::lineage::{Known, Mark};

/// The format that this build writes.
const FORMAT: u64 = 2;
/// The oldest format that this build reads: boots alone.
const FORMAT_OLDEST: u64 = 1;

/// What is known, by node and incarnation.
pub type SeenBoots = BTreeMap<(NodeId, Incarnation), Known>;

/// A handle to the file.
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
    /// The field keeps the name of the first builds: a changed term does not justify a new format.
    #[serde(rename = "life")]
    incarnation: String,
    boot: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drawn: Option<String>,
    /// The boot and the commit of each shard's store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<(u32, u64)>,
}

impl SeenFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the file; nothing is known if there is none.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or has a newer format.
    pub fn load(&self) -> Result<SeenBoots, DataDirError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SeenBoots::new()),
            Err(error) => return Err(DataDirError::io("read", &self.path)(error)),
        };
        let damaged = |why: String| DataDirError::Damaged { path: self.path.clone(), why };
        // The format first: a newer one may have other fields.
        let format = super::format_of_json(&bytes, &self.path)?;
        if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
            return Err(DataDirError::Format { path: self.path.clone(), format, newest: FORMAT });
        }
        let file: File = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if file.check != check(&file.seen) {
            return Err(damaged("its checksum does not match its contents".to_owned()));
        }
        let parsed = file.seen.iter().map(SeenForm::parse).collect::<Option<_>>();
        parsed.ok_or_else(|| damaged("a field is malformed".to_owned()))
    }

    /// Replaces the file's contents with `boots`, durably.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, boots: &SeenBoots) -> Result<(), DataDirError> {
        let form = |(&(node, incarnation), known): (&(NodeId, Incarnation), &Known)| SeenForm {
            node: format!("{:016x}", node.get()),
            incarnation: format!("{:016x}", incarnation.0),
            boot: known.boot,
            drawn: Some(format!("{:016x}", known.drawn)),
            marks: known.marks.iter().map(|mark| (mark.boot, mark.commit)).collect(),
        };
        let seen: Vec<SeenForm> = boots.iter().map(form).collect();
        let file = File { format: FORMAT, check: check(&seen), seen };
        // Text and numbers always have a JSON form.
        let bytes = serde_json::to_vec(&file).unwrap_or_default();
        atomic_file::replace(&self.path, &bytes).map_err(DataDirError::io("write", &self.path))
    }
}

impl SeenForm {
    fn parse(&self) -> Option<((NodeId, Incarnation), Known)> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let marks = self.marks.iter().map(|&(boot, commit)| Mark { boot, commit }).collect();
        let drawn = self.drawn.as_deref().map_or(Some(0), number)?;
        let known = Known { boot: self.boot, drawn, marks };
        Some(((NodeId::new(number(&self.node)?), Incarnation(number(&self.incarnation)?)), known))
    }
}

fn check(seen: &[SeenForm]) -> String {
    let mut hasher = blake3::Hasher::new();
    for SeenForm { node, incarnation, boot, drawn, marks } in seen {
        // The first format hashed the first three fields only.
        let drawn = drawn.as_ref().map(|drawn| format!("{drawn} {marks:?}"));
        for field in [Some(node), Some(incarnation), Some(&boot.to_string()), drawn.as_ref()].into_iter().flatten() {
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
        fn any_bytes_load_or_fail_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("seen"), &noise).unwrap();
            prop_assert!(file(&dir).load().is_err());
        }
    }

    #[test]
    fn saved_boots_load_and_damage_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(&dir);
        assert_eq!(file.load().unwrap(), SeenBoots::new());
        let known = Known { boot: 7, drawn: 9, marks: vec![Mark { boot: 7, commit: 3 }, Mark::default()] };
        let other = Known { boot: 1, ..Known::default() };
        let boots = SeenBoots::from([
            ((NodeId::new(1), Incarnation(u64::MAX)), known),
            ((NodeId::new(u64::MAX), Incarnation(0)), other),
        ]);
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
