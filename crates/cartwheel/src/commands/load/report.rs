//! The summary of a load, as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::LoadArgs;
use super::progress::Checkpoint;
use super::store::{BadRecord, Store};

/// A summary. `--json` prints its fields, which are stable: fields may be added but not removed.
#[derive(Debug, Serialize)]
pub(super) struct LoadSummary {
    file: String,
    bucket: String,
    /// Whether the file is loaded to its end.
    complete: bool,
    /// Records stored, including earlier runs of this load.
    stored: u64,
    /// Records stored by earlier runs.
    stored_before: u64,
    /// Bad records that were skipped.
    skipped: u64,
    /// The first bad records of this run.
    bad: Vec<BadRecord>,
    retries: u64,
    /// Bytes of the values that this run stored.
    value_bytes: u64,
    seconds: f64,
    records_per_second: f64,
}

impl LoadSummary {
    pub(super) fn new(args: &LoadArgs, store: &Store, begun: Checkpoint, took: Duration, complete: bool) -> Self {
        let checkpoint = store.checkpoint();
        Self {
            file: args.file.display().to_string(),
            bucket: args.bucket.clone(),
            complete,
            stored: checkpoint.stored,
            stored_before: begun.stored,
            skipped: checkpoint.skipped,
            bad: store.bad(),
            retries: store.retries(),
            value_bytes: store.bytes(),
            seconds: took.as_secs_f64(),
            records_per_second: (checkpoint.stored - begun.stored) as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("stored {} records of {} in {}", self.stored, self.file, self.bucket);
        if self.stored_before > 0 {
            let _ = write!(text, ", {} of them in earlier runs", self.stored_before);
        }
        let _ = writeln!(text, " ({:.0} records/s, {:.1} s)", self.records_per_second, self.seconds);
        for BadRecord { line, why } in &self.bad {
            let _ = writeln!(text, "skipped line {line}: {why}");
        }
        if self.skipped > self.bad.len() as u64 {
            let _ = writeln!(text, "skipped {} records in all", self.skipped);
        }
        if self.retries > 0 {
            let _ = writeln!(text, "retried {} requests", self.retries);
        }
        text
    }
}
