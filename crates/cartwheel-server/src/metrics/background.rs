use std::fmt;

use cartwheel_core::admission::WorkClass;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::shard::ShardHandle;

/// How much background work the shards admit, collected on each scrape.
#[derive(Debug)]
pub(super) struct Background(pub(super) Vec<ShardHandle>);

impl Collector for Background {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shards: Vec<_> = self.0.iter().map(ShardHandle::admitted).enumerate().collect();
        let help = "Background work of each kind that a shard admits per second, in units of about one key.";
        let mut family = encoder.encode_descriptor("background_rate", help, None, MetricType::Gauge)?;
        for (index, shard) in &shards {
            let rate = i64::try_from(shard.rate).unwrap_or(i64::MAX);
            ConstGauge::new(rate).encode(family.encode_family(&[("shard", index.to_string())])?)?;
        }
        let help = "99th percentile of the duration of client requests that succeeded in the last 60 seconds.";
        let mut family = encoder.encode_descriptor("foreground_tail_seconds", help, None, MetricType::Gauge)?;
        for (index, shard) in &shards {
            ConstGauge::new(shard.p99.as_secs_f64()).encode(family.encode_family(&[("shard", index.to_string())])?)?;
        }
        let help = "Limit for that percentile, over 60 seconds or one, above which background work slows down.";
        let mut family = encoder.encode_descriptor("foreground_tail_limit_seconds", help, None, MetricType::Gauge)?;
        for (index, shard) in &shards {
            ConstGauge::new(shard.limit.as_secs_f64())
                .encode(family.encode_family(&[("shard", index.to_string())])?)?;
        }
        let help = "Pieces of background work started, by kind.";
        let mut family = encoder.encode_descriptor("background_begun", help, None, MetricType::Counter)?;
        for slice in WorkClass::ALL {
            let begun: u64 = shards.iter().map(|(_, shard)| shard.begun[slice as usize]).sum();
            ConstCounter::new(begun).encode(family.encode_family(&[("kind", slice.name())])?)?;
        }
        Ok(())
    }
}
