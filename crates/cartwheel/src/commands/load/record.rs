//! The records of a file.

use std::time::Duration;

use bytes::Bytes;
use cartwheel_client::Value;
use cartwheel_core::value::key::Key;

use super::{FileFormat, LoadArgs};

/// The longest record in bytes. A longer one is taken for a missing line end or an unclosed quote.
pub(super) const RECORD_BYTES_MAX: u64 = 16 << 20;
/// The error for a longer record.
pub(super) const TOO_LONG: &str = "the record is longer than 16 MiB: a line end or a closing quote is missing";

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) content_type: String,
    pub(super) exported: Exported,
}

/// What a record of an export has beside its first value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Exported {
    pub(super) content_encoding: String,
    pub(super) ttl: Option<Duration>,
    /// The other values.
    pub(super) siblings: Vec<Value>,
}

/// A part of the file with its record, or the reason why it holds none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Item {
    /// The first line, counted from 1.
    pub(super) line: u64,
    /// The line after the last one.
    pub(super) next_line: u64,
    /// The end of the part, in bytes from the beginning of the file.
    pub(super) end: u64,
    pub(super) record: Result<Record, String>,
}

/// The position of the next record in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    pub(super) offset: u64,
    pub(super) line: u64,
}

impl Start {
    pub(super) const FILE: Self = Self { offset: 0, line: 1 };
}

/// The fields to extract from each record.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    bucket: Bytes,
    pub(super) key: String,
    pub(super) value: Option<String>,
    content_type: Option<String>,
    /// Whether the records are those of an export.
    pub(super) is_export: bool,
}

impl Shape {
    pub(super) fn new(args: &LoadArgs) -> Self {
        Self {
            bucket: args.bucket.clone().into(),
            key: args.key.clone().unwrap_or_default(),
            is_export: args.format() == Some(FileFormat::Export),
            value: args.value.clone(),
            content_type: args.content_type.clone(),
        }
    }

    /// Builds a record. The value has the media type `content_type`, unless the command line sets another one.
    pub(super) fn record(&self, key: Bytes, value: Bytes, content_type: &str) -> Result<Record, String> {
        Key::new(self.bucket.clone(), key.clone()).map_err(|error| error.to_string())?;
        let content_type = self.content_type.as_deref().unwrap_or(content_type).to_owned();
        Ok(Record { key, value, content_type, exported: Exported::default() })
    }

    /// The longest line in bytes.
    pub(super) const fn line_bytes_max(&self) -> u64 {
        // The siblings of one key, in base64.
        if self.is_export { 4 * RECORD_BYTES_MAX } else { RECORD_BYTES_MAX }
    }

    #[cfg(test)]
    pub(super) fn of(key: &str, value: Option<&str>) -> Self {
        Self {
            bucket: "b".into(),
            key: key.to_owned(),
            value: value.map(str::to_owned),
            content_type: None,
            is_export: false,
        }
    }
}
