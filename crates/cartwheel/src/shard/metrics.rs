//! What a shard counts.

use std::time::Duration;

use cartwheel_core::node::Event;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::disk::Condition;
use crate::metrics::{latency_buckets, sizes};

/// What the shards of a node count. Clones count together.
#[derive(Clone, Debug)]
pub struct ShardMetrics {
    turn_inputs: Histogram,
    commit_writes: Histogram,
    commit_duration: Histogram,
    commit_failures: Counter,
    read_failures: Counter,
    pub(super) refusals: Counter,
    repairs: Counter,
    records_lost: Counter,
    dot_collisions: Counter,
    stray_messages: Counter,
    clock_alarms: Counter,
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
            repairs: Counter::default(),
            records_lost: Counter::default(),
            dot_collisions: Counter::default(),
            stray_messages: Counter::default(),
            clock_alarms: Counter::default(),
            clock_refuses: Gauge::default(),
            disk_full: Gauge::default(),
            store_failed: Gauge::default(),
        }
    }
}

impl ShardMetrics {
    /// Puts them into `registry`, under the names that operators know.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("store_commit_failures", "Commits that the store failed", &self.commit_failures),
            ("store_read_failures", "Reads that the store failed", &self.read_failures),
            (
                "shard_inbox_refusals",
                "Requests refused with 429 because too much waited for a shard already",
                &self.refusals,
            ),
            ("read_repairs", "Replicas that were behind and were sent what they lacked", &self.repairs),
            (
                "records_lost",
                "Stored records that could not be read and are healed from their replicas",
                &self.records_lost,
            ),
            (
                "dot_collisions",
                "Writes that came with two contents under one name: a broken disk or a forged message",
                &self.dot_collisions,
            ),
            (
                "stray_messages",
                "Messages dropped because their sender is no member of the cluster",
                &self.stray_messages,
            ),
            ("clock_alarms", "How often this node's clock was found to be off its peers'", &self.clock_alarms),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let histograms = [
            ("shard_turn_inputs", "Requests and messages that a shard took in at once", &self.turn_inputs),
            ("store_commit_writes", "Records that one commit wrote", &self.commit_writes),
            ("store_commit_duration_seconds", "Time that a commit took, its sync included", &self.commit_duration),
        ];
        for (name, help, histogram) in histograms {
            registry.register(name, help, histogram.clone());
        }
        let gauges = [
            (
                "clock_refuses_writes",
                "1 while this node takes no writes because its clock is off its peers'",
                &self.clock_refuses,
            ),
            ("disk_full", "How many shards store no writes because too little disk is free", &self.disk_full),
            ("store_failed", "How many shards have a store that has failed and is not open again", &self.store_failed),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
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

    pub(crate) fn read_failed(&self) {
        self.read_failures.inc();
    }

    /// What the disk of a shard was good for, and is good for now.
    pub(super) fn disk(&self, before: Condition, now: Condition) {
        for (gauge, condition) in [(&self.disk_full, Condition::Full), (&self.store_failed, Condition::Failed)] {
            gauge.inc_by(i64::from(now == condition) - i64::from(before == condition));
        }
    }

    pub(crate) fn event(&self, event: &Event) {
        let counter = match event {
            Event::Repaired(..) => &self.repairs,
            Event::DotCollision(_) => &self.dot_collisions,
            Event::RecordLost(..) => &self.records_lost,
            Event::StrayMessage(_) => &self.stray_messages,
            Event::ClockOff { offset_ms, refuses } => {
                self.clock_refuses.set(i64::from(*refuses));
                // The end of an alarm is told with an offset of zero.
                if *offset_ms == 0 {
                    return;
                }
                &self.clock_alarms
            }
        };
        counter.inc();
    }
}
