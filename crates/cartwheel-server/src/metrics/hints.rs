use std::fmt;

use cartwheel_core::cluster::sizes::Backlog;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::peers::Board;
use crate::shard::HintsBoard;

/// The hints that the shards keep, collected on each scrape.
#[derive(Debug)]
pub(super) struct HintsCollector {
    pub(super) hints: HintsBoard,
    /// The peers' names.
    pub(super) board: Board,
}

impl Collector for HintsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        type Count = fn(&Backlog) -> u64;
        let owed = self.hints.owed();
        let gauges: [(&str, &str, Count); 2] = [
            ("hints_held", "Hints kept for a peer: records that it is owed.", |owed| owed.records),
            ("hints_held_bytes", "Bytes of hints kept for a peer.", |owed| owed.bytes),
        ];
        for (name, help, count) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            // Peers without hints are shown too, so that an absent series is never ambiguous.
            for (node, peer) in self.board.all() {
                let backlog = owed.get(&node).copied().unwrap_or_default();
                let labels = [("peer", peer.name.clone())];
                ConstGauge::new(as_number(count(&backlog))).encode(family.encode_family(&labels)?)?;
            }
            // A home that left the cluster is owed records until they have gone to the present homes.
            for (node, backlog) in owed.iter().filter(|(node, _)| self.board.get(**node).is_none()) {
                let labels = [("peer", node.to_string())];
                ConstGauge::new(as_number(count(backlog))).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in [
            ("hints_bytes_max", "Bytes of hints that this node may keep.", self.hints.bytes_max()),
            ("hints_full", "Shards that keep as many hints as they may.", self.hints.full_shards()),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(as_number(value)).encode(gauge)?;
        }
        Ok(())
    }
}

fn as_number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
