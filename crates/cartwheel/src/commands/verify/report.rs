//! The report of a verification, as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_client::kv_path;
use cartwheel_core::value::key::Key;
use serde::Serialize;

use super::held::Held;
use super::nodes::Nodes;

#[derive(Default, Debug)]
pub(super) struct Tally {
    /// Keys with contents on some node.
    pub(super) keys: u64,
    /// Records read for these keys.
    pub(super) records: u64,
    pub(super) differing: u64,
    /// The first differing keys.
    pub(super) differences: Vec<Difference>,
    /// Keys whose reachable replicas are equal, but with a replica that could not be reached.
    pub(super) unverified: u64,
    /// Keys that were being written each time they were read.
    pub(super) in_motion: u64,
    /// Records on nodes that are not homes of their keys.
    pub(super) hints: u64,
    /// Partitions with fewer homes than their target.
    pub(super) under_replicated: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self, list: usize) {
        let Self { keys, records, differing, differences, unverified, in_motion, hints, under_replicated } = other;
        self.keys += keys;
        self.records += records;
        self.differing += differing;
        self.unverified += unverified;
        self.in_motion += in_motion;
        self.hints += hints;
        self.under_replicated += under_replicated;
        self.differences.extend(differences);
        self.differences.truncate(list);
    }
}

/// A key whose replicas differ.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    /// Bucket and key, percent-encoded as in a URL path.
    key: String,
    partition: u32,
    replicas: Vec<ReplicaForm>,
}

#[derive(Debug, Serialize)]
struct ReplicaForm {
    node: String,
    held: Held,
}

impl Difference {
    pub(super) fn new(storage_key: &[u8], partition: u32, replicas: Vec<(String, Held)>) -> Self {
        let replicas = replicas.into_iter().map(|(node, held)| ReplicaForm { node, held }).collect();
        Self { key: display_key(storage_key), partition, replicas }
    }
}

fn display_key(storage_key: &[u8]) -> String {
    match Key::from_storage_key(&Bytes::copy_from_slice(storage_key)) {
        Ok(key) => kv_path(key.bucket(), key.name()).trim_start_matches("/v1/kv/").to_owned(),
        Err(_) => format!("(no key: {})", URL_SAFE_NO_PAD.encode(storage_key)),
    }
}

/// A summary. `--json` prints its fields, which are stable: fields may be added but not removed.
#[derive(Debug, Serialize)]
pub(super) struct VerifySummary {
    /// Whether every key was proven equal on all its replicas.
    equal: bool,
    partitions: u32,
    keys: u64,
    records: u64,
    differing: u64,
    differences: Vec<Difference>,
    unverified: u64,
    unreachable: Vec<UnreachableForm>,
    in_motion: u64,
    hints: u64,
    /// Partitions with fewer homes than the largest n, or than the number of nodes that can hold data if that is smaller.
    under_replicated: u64,
    seconds: f64,
    keys_per_second: f64,
}

#[derive(Debug, Serialize)]
struct UnreachableForm {
    node: String,
    why: String,
}

impl VerifySummary {
    pub(super) fn new(tally: Tally, nodes: &Nodes, partitions: u32, took: Duration, settled: bool) -> Self {
        let Tally { keys, records, differing, differences, unverified, in_motion, hints, under_replicated } = tally;
        let form = |(node, why): (&str, String)| UnreachableForm { node: node.to_owned(), why };
        let unreachable: Vec<_> = nodes.unreachable().map(form).collect();
        let unsettled = settled && in_motion + hints + under_replicated > 0;
        Self {
            equal: differing + unverified == 0 && unreachable.is_empty() && !unsettled,
            partitions,
            keys,
            records,
            differing,
            differences,
            unverified,
            unreachable,
            in_motion,
            hints,
            under_replicated,
            seconds: took.as_secs_f64(),
            keys_per_second: keys as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }

    /// Whether every key was proven equal on all its replicas.
    pub(super) fn is_equal(&self) -> bool {
        self.equal
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Difference { key, partition, replicas } in &self.differences {
            let _ = writeln!(text, "{key} differs (partition {partition})");
            for ReplicaForm { node, held } in replicas {
                let _ = writeln!(text, "  {node}: {}", held.text());
            }
        }
        if self.differing > self.differences.len() as u64 {
            let _ = writeln!(text, "... and {} more", self.differing - self.differences.len() as u64);
        }
        for UnreachableForm { node, why } in &self.unreachable {
            let _ = writeln!(text, "cannot read {node}: {why}");
        }
        let _ = writeln!(
            text,
            "read {} of {} in {} partitions ({:.0} keys/s, {:.1} s)",
            counted(self.records, "record"),
            counted(self.keys, "key"),
            self.partitions,
            self.keys_per_second,
            self.seconds
        );
        for (count, what) in [
            (self.differing, "not equal on all replicas"),
            (self.unverified, "equal on all reachable replicas, but some could not be read"),
            (self.in_motion, "written to during each read"),
        ] {
            if count > 0 {
                let _ = writeln!(text, "{}: {what}", counted(count, "key"));
            }
        }
        if self.hints > 0 {
            let _ = writeln!(text, "{} held by stand-ins, not handed over yet", counted(self.hints, "record"));
        }
        if self.under_replicated > 0 {
            let _ = writeln!(
                text,
                "WARNING: {} with too few replicas: see `cartwheel cluster status` and `cartwheel cluster transfers`",
                counted(self.under_replicated, "partition")
            );
        }
        text.push_str(match (self.equal, self.in_motion) {
            (true, 0) => "EQUAL: every key is equal on all its replicas\n",
            (true, _) => "EQUAL: every other key is equal on all its replicas\n",
            (false, _) => "NOT EQUAL: some replicas differ or could not be verified\n",
        });
        text
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
