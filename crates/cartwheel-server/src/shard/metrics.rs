//! The metrics of shards.

use std::time::Duration;

use cartwheel_core::event::{Event, Repair};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::HintsBoard;
use super::disk::Condition;

/// The metrics of a node's shards. Clones count together.
#[derive(Clone, Debug)]
pub struct ShardMetrics {
    turn_inputs: Histogram,
    commit_writes: Histogram,
    commit_duration: Histogram,
    commit_failures: Counter,
    read_failures: Counter,
    pub(super) refusals: Counter,
    writes_forwarded: Counter,
    slow_requests: Family<[(&'static str, &'static str); 1], Counter>,
    repairs: Family<[(&'static str, &'static str); 1], Counter>,
    exchanges: Counter,
    exchange_failures: Counter,
    exchange_refusals: Counter,
    exchange_digests: Counter,
    transfer_sent_records: Counter,
    transfer_sent_bytes: Counter,
    transfer_received_records: Counter,
    transfer_received_bytes: Counter,
    trees_wrong: Counter,
    trees_unready: Gauge,
    tombstones: Gauge,
    records_lost: Counter,
    records_not_known: Counter,
    dot_collisions: Counter,
    stray_messages: Counter,
    stale_refusals: Counter,
    tombstones_collected: Counter,
    gc_records_examined: Counter,
    not_a_home: Counter,
    hints: HintsBoard,
    hints_delivered: Counter,
    clock_alarms: Counter,
    timestamp_alarms: Counter,
    clock_refuses: Gauge,
    disk_full: Gauge,
    store_failed: Gauge,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        Self {
            turn_inputs: Histogram::new(sizes(super::TURN_MAX)),
            commit_writes: Histogram::new(sizes(super::TURN_MAX)),
            commit_duration: Histogram::new(latency_buckets()),
            commit_failures: Counter::default(),
            read_failures: Counter::default(),
            refusals: Counter::default(),
            writes_forwarded: Counter::default(),
            slow_requests: Family::default(),
            repairs: Family::default(),
            exchanges: Counter::default(),
            exchange_failures: Counter::default(),
            exchange_refusals: Counter::default(),
            exchange_digests: Counter::default(),
            transfer_sent_records: Counter::default(),
            transfer_sent_bytes: Counter::default(),
            transfer_received_records: Counter::default(),
            transfer_received_bytes: Counter::default(),
            trees_wrong: Counter::default(),
            trees_unready: Gauge::default(),
            tombstones: Gauge::default(),
            records_lost: Counter::default(),
            records_not_known: Counter::default(),
            dot_collisions: Counter::default(),
            stray_messages: Counter::default(),
            stale_refusals: Counter::default(),
            tombstones_collected: Counter::default(),
            gc_records_examined: Counter::default(),
            not_a_home: Counter::default(),
            hints: HintsBoard::default(),
            hints_delivered: Counter::default(),
            clock_alarms: Counter::default(),
            timestamp_alarms: Counter::default(),
            clock_refuses: Gauge::default(),
            disk_full: Gauge::default(),
            store_failed: Gauge::default(),
        }
    }
}

impl ShardMetrics {
    /// Registers the metrics under their public names.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("store_commit_failures", "Commits that the store failed", &self.commit_failures),
            ("store_read_failures", "Reads that the store failed", &self.read_failures),
            ("shard_inbox_refusals", "Requests refused with 429 because a shard was overloaded", &self.refusals),
            (
                "writes_forwarded",
                "Writes sent to another node, a home of their key, to be coordinated there; one sent again counts again",
                &self.writes_forwarded,
            ),
            ("exchanges", "Exchanges with a peer that ended with both replicas equal", &self.exchanges),
            ("exchange_failures", "Exchanges with a peer that did not complete", &self.exchange_failures),
            (
                "exchange_refusals",
                "Anti-entropy messages from peers that were malformed, or about partitions that the nodes do not share",
                &self.exchange_refusals,
            ),
            ("exchange_digests_sent", "Digests of keys and of ranges of keys sent to peers", &self.exchange_digests),
            ("transfer_sent_records", "Records sent to new homes", &self.transfer_sent_records),
            ("transfer_sent_bytes", "Bytes of these records, as stored", &self.transfer_sent_bytes),
            ("transfer_received_records", "Records received as a new home", &self.transfer_received_records),
            (
                "transfer_received_bytes",
                "Bytes of these records, as stored by their senders",
                &self.transfer_received_bytes,
            ),
            ("trees_wrong", "Merkle trees that did not match their records and were rebuilt", &self.trees_wrong),
            (
                "records_lost",
                "Stored records that could not be read and are healed from other replicas",
                &self.records_lost,
            ),
            (
                "records_not_known",
                "Requests for stored records that only a newer build can read",
                &self.records_not_known,
            ),
            (
                "dot_collisions",
                "Keys with two values of one version: a broken disk, a copied data directory or a forged message",
                &self.dot_collisions,
            ),
            (
                "stray_messages",
                "Messages dropped because their sender is not a member of the cluster",
                &self.stray_messages,
            ),
            ("stale_refusals", "Messages refused because they were sent more than one epoch ago", &self.stale_refusals),
            (
                "tombstones_collected",
                "Tombstones and expired values that were garbage collected",
                &self.tombstones_collected,
            ),
            ("gc_records_examined", "Records examined by the garbage collection sweep", &self.gc_records_examined),
            (
                "not_a_home_refusals",
                "Requests from peers for keys of which this node, or the node to stand in for, is not a home",
                &self.not_a_home,
            ),
            ("hints_delivered", "Hints that were delivered to their peer", &self.hints_delivered),
            (
                "timestamp_alarms",
                "Times that this node's timestamps began to run well ahead of its clock",
                &self.timestamp_alarms,
            ),
            ("clock_alarms", "Times that this node's clock was found to be off its peers' clocks", &self.clock_alarms),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        // All kinds exist from the start, at zero.
        for how in [Repair::Read, Repair::Heal, Repair::Exchange] {
            drop(self.repaired(how));
        }
        let help = "Stale replicas that were repaired, by how they were found";
        registry.register("repairs", help, self.repairs.clone());
        for operation in ["get", "put", "delete"] {
            drop(self.slow_requests.get_or_create(&[("operation", operation)]));
        }
        let help = "Requests on keys that took as long as the setting slow_request or longer";
        registry.register("requests_slow", help, self.slow_requests.clone());
        let histograms = [
            ("shard_turn_inputs", "Requests and messages in one turn of a shard", &self.turn_inputs),
            ("store_commit_writes", "Records written by one commit", &self.commit_writes),
            ("store_commit_duration_seconds", "Duration of a commit, including its sync", &self.commit_duration),
        ];
        for (name, help, histogram) in histograms {
            registry.register(name, help, histogram.clone());
        }
        let gauges = [
            (
                "clock_refuses_writes",
                "1 while this node refuses writes because its clock is off its peers' clocks",
                &self.clock_refuses,
            ),
            (
                "trees_unready",
                "Partitions that are not compared because their Merkle trees are being built",
                &self.trees_unready,
            ),
            (
                "tombstones",
                "Tombstones held as a home and not collected yet, without partitions whose Merkle trees are being built",
                &self.tombstones,
            ),
            ("disk_full", "Shards that refuse writes because too little disk space is free", &self.disk_full),
            ("store_failed", "Shards whose store has failed and is not open again", &self.store_failed),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    /// The hints of the shards.
    pub const fn hints(&self) -> &HintsBoard {
        &self.hints
    }

    /// How often a key got two values with one version.
    pub const fn dot_collisions(&self) -> &Counter {
        &self.dot_collisions
    }

    pub(crate) fn turn(&self, inputs: usize) {
        if inputs > 0 {
            self.turn_inputs.observe(inputs as f64);
        }
    }

    pub(crate) fn commit(&self, writes: usize, took: Duration, failed: bool) {
        self.commit_writes.observe(writes as f64);
        self.commit_duration.observe(took.as_secs_f64());
        if failed {
            self.commit_failures.inc();
        }
    }

    pub(crate) fn slow_request(&self, operation: &'static str) {
        self.slow_requests.get_or_create(&[("operation", operation)]).inc();
    }

    pub(crate) fn write_forwarded(&self) {
        self.writes_forwarded.inc();
    }

    pub(crate) fn read_failed(&self) {
        self.read_failures.inc();
    }

    /// Records that a shard's disk changed from one condition to another.
    pub(super) fn disk(&self, before: Condition, now: Condition) {
        for (gauge, condition) in [(&self.disk_full, Condition::Full), (&self.store_failed, Condition::Failed)] {
            gauge.inc_by(i64::from(now == condition) - i64::from(before == condition));
        }
    }

    /// Records how many tombstones a shard held before and holds now.
    pub(crate) fn tombstones(&self, before: u64, now: u64) {
        self.tombstones.inc_by(now as i64 - before as i64);
    }

    fn repaired(&self, how: Repair) -> impl std::ops::Deref<Target = Counter> + '_ {
        self.repairs.get_or_create(&[("kind", how.name())])
    }

    pub(crate) fn event(&self, event: &Event) {
        let counter = match event {
            Event::Repaired(_, _, how) => {
                self.repaired(*how).inc();
                return;
            }
            Event::Exchanged(..) => &self.exchanges,
            Event::ExchangeFailed(..) => &self.exchange_failures,
            Event::ExchangeRefused(_) => &self.exchange_refusals,
            Event::TreeWrong(_) => &self.trees_wrong,
            Event::DigestsSent(count) => {
                self.exchange_digests.inc_by(*count as u64);
                return;
            }
            Event::TransferSent { records, bytes } => {
                self.transfer_sent_records.inc_by(*records);
                self.transfer_sent_bytes.inc_by(*bytes);
                return;
            }
            Event::TransferReceived { records, bytes, .. } => {
                self.transfer_received_records.inc_by(*records);
                self.transfer_received_bytes.inc_by(*bytes);
                return;
            }
            Event::TreesUnready { before, now } => {
                self.trees_unready.inc_by(*now as i64 - *before as i64);
                return;
            }
            Event::DotCollision(_) => &self.dot_collisions,
            Event::RecordLost(..) => &self.records_lost,
            Event::RecordNotKnown(..) => &self.records_not_known,
            Event::StrayMessage(_) => &self.stray_messages,
            Event::StaleRefused(_) => &self.stale_refusals,
            Event::Collected(deleted) => {
                self.tombstones_collected.inc_by(*deleted);
                &self.gc_records_examined
            }
            Event::NotAHome(_) => &self.not_a_home,
            Event::HintDelivered(_) => &self.hints_delivered,
            Event::HintsHeld { home, before, now } => {
                self.hints.changed(*home, *before, *now);
                return;
            }
            Event::HintsFull { is_full, .. } => {
                self.hints.full(*is_full);
                return;
            }
            Event::ClockOff { offset_ms, refuses } => {
                self.clock_refuses.set(i64::from(*refuses));
                // The end of an alarm is reported with offset zero.
                if *offset_ms == 0 {
                    return;
                }
                &self.clock_alarms
            }
            Event::TimestampsAhead { ahead_ms: 0 } => return,
            Event::TimestampsAhead { .. } => &self.timestamp_alarms,
        };
        counter.inc();
    }
}

/// From 50 us to 26 s, doubling.
pub(crate) fn latency_buckets() -> impl Iterator<Item = f64> {
    exponential_buckets(0.000_05, 2.0, 20)
}

/// From 1 to `max`, doubling.
fn sizes(max: usize) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(1), |size| Some(size * 2)).take_while(move |&size| size <= max).map(|size| size as f64)
}
