//! What a load did, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::LoadArgs;
use super::progress::Place;
use super::store::{Bad, Store};

/// A summary. Its fields are what `--json` shows: they stay, others may join them.
#[derive(Debug, Serialize)]
pub(super) struct LoadSummary {
    file: String,
    bucket: String,
    /// Whether all of the file is stored.
    complete: bool,
    /// Records stored, those of earlier runs of this load included.
    stored: u64,
    /// Those of earlier runs.
    stored_before: u64,
    /// Records that made no sense.
    skipped: u64,
    /// The first of them that this run has met.
    bad: Vec<Bad>,
    /// How often a record had to be tried again.
    retries: u64,
    /// Bytes of values that this run stored.
    value_bytes: u64,
    seconds: f64,
    records_per_second: f64,
}

impl LoadSummary {
    pub(super) fn new(args: &LoadArgs, store: &Store, begun: Place, took: Duration, complete: bool) -> Self {
        let place = store.place();
        Self {
            file: args.file.display().to_string(),
            bucket: args.bucket.clone(),
            complete,
            stored: place.stored,
            stored_before: begun.stored,
            skipped: place.skipped,
            bad: store.bad(),
            retries: store.retries(),
            value_bytes: store.bytes(),
            seconds: took.as_secs_f64(),
            records_per_second: (place.stored - begun.stored) as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("stored {} records of {} in {}", self.stored, self.file, self.bucket);
        if self.stored_before > 0 {
            let _ = write!(text, ", {} of them before", self.stored_before);
        }
        let _ = writeln!(text, " ({:.0} records/s, {:.1} s)", self.records_per_second, self.seconds);
        for Bad { line, why } in &self.bad {
            let _ = writeln!(text, "line {line} was skipped: {why}");
        }
        if self.skipped > self.bad.len() as u64 {
            let _ = writeln!(text, "{} records were skipped in all", self.skipped);
        }
        if self.retries > 0 {
            let _ = writeln!(text, "{} times a record had to be tried again", self.retries);
        }
        text
    }
}
