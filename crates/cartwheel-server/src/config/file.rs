use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::given::{BadValue, Given};
use super::settings::{NAMES, Settings, nearest};

/// The longest file, in bytes. It keeps a mistaken path from filling the memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}; give another file with --config, or none")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It exceeds the size limit.
    #[error("{0} has more than {FILE_BYTES_MAX} bytes, too many for a configuration; check the path after --config")]
    Long(PathBuf),
    /// It is not TOML.
    #[error("cannot parse {path}: {why}; write it as TOML, for example `cache_size = \"256MiB\"`")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The position and the cause.
        why: String,
    },
    /// It has an unknown key.
    #[error("{path}, line {line}: unknown setting {key:?}{}; use one of {}", did_you_mean(*.nearest), NAMES.join(", "))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The setting that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value is invalid.
    #[error("{path}, line {line}: {bad}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The value.
        bad: BadValue,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean {nearest}?)"))
}

/// Reads the settings in the file at `path`.
pub(super) fn read(path: &Path) -> Result<Settings, FileError> {
    let failed = |source| FileError::Read { path: path.to_path_buf(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::Long(path.to_path_buf()));
    }
    parse(path, &text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Settings, FileError> {
    let why = |error: toml::de::Error| FileError::Syntax { path: path.to_path_buf(), why: error.to_string() };
    let table = DeTable::parse(text).map_err(why)?;
    let line_of = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let mut settings = Settings::default();
    for (key, value) in table.get_ref() {
        let (path, line, name) = (path.to_path_buf(), line_of(key.span().start), key.get_ref().as_ref());
        if !NAMES.contains(&name) {
            let nearest = nearest(&name.to_ascii_lowercase().replace('-', "_"), &NAMES);
            return Err(FileError::Unknown { path, line, key: name.to_owned(), nearest });
        }
        let given = Given::Toml(value.get_ref());
        settings.set(name, &given).map_err(|wanted| {
            let bad = BadValue { name: name.to_owned(), value: given.shown(), wanted };
            FileError::Value { path, line, bad }
        })?;
    }
    Ok(settings)
}
