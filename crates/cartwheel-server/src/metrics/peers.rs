use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::peers::{Board, Nonsense, PeerStats};

/// What is known of the peers when Prometheus asks.
#[derive(Debug)]
pub(super) struct PeerCollector(pub(super) Board);

impl Collector for PeerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        type Count = fn(&PeerStats) -> u64;
        let counters: [(&str, &str, Count); 7] = [
            ("peer_messages_sent", "Messages sent to a peer.", |peer| peer.sent.messages.load(Ordering::Relaxed)),
            ("peer_sent_bytes", "Bytes of messages sent to a peer.", |peer| peer.sent.bytes.load(Ordering::Relaxed)),
            ("peer_messages_received", "Messages that came from a peer.", |peer| {
                peer.received.messages.load(Ordering::Relaxed)
            }),
            ("peer_received_bytes", "Bytes of messages that came from a peer.", |peer| {
                peer.received.bytes.load(Ordering::Relaxed)
            }),
            (
                "exchange_sent_bytes",
                "Bytes of messages sent to a peer to compare replicas with it and to make them equal.",
                |peer| peer.exchange_bytes.load(Ordering::Relaxed),
            ),
            (
                "peer_messages_dropped",
                "Messages to a peer that were dropped: there was no connection, or too much waited for it.",
                |peer| peer.dropped.load(Ordering::Relaxed),
            ),
            ("peer_connects", "How often a connection to a peer came about.", |peer| {
                peer.connects.load(Ordering::Relaxed)
            }),
        ];
        for (name, help, count) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for peer in self.0.peers() {
                ConstCounter::new(count(&peer)).encode(family.encode_family(&labels(&peer))?)?;
            }
        }
        let help = "Connections to the port for peers that were refused, or cut off before a hello.";
        let refusals = encoder.encode_descriptor("peer_refusals", help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.refusals()).encode(refusals)?;
        let help = "What peers sent that makes no sense, and that closed the connection it came on.";
        let mut family = encoder.encode_descriptor("peer_nonsense", help, None, MetricType::Counter)?;
        for kind in Nonsense::ALL {
            let labels = [("kind", kind.name())];
            ConstCounter::new(self.0.nonsense(kind)).encode(family.encode_family(&labels)?)?;
        }
        let help = "1 while the connection to a peer stands.";
        let mut family = encoder.encode_descriptor("peer_connected", help, None, MetricType::Gauge)?;
        for peer in self.0.peers() {
            let connected = i64::from(peer.link().connected);
            ConstGauge::new(connected).encode(family.encode_family(&labels(&peer))?)?;
        }
        let help = "The version of the protocol that is used on the connection to a peer, while it stands.";
        let mut family = encoder.encode_descriptor("peer_protocol", help, None, MetricType::Gauge)?;
        for peer in self.0.peers() {
            if let Some(protocol) = peer.link().protocol {
                ConstGauge::new(i64::from(protocol.0)).encode(family.encode_family(&labels(&peer))?)?;
            }
        }
        let help = "A peer's clock less this node's, while the peer is heard.";
        let mut family = encoder.encode_descriptor("peer_clock_offset_seconds", help, None, MetricType::Gauge)?;
        let now = self.0.now();
        for peer in self.0.peers() {
            if let Some(offset_ms) = peer.clock_offset_ms(now) {
                ConstGauge::new(offset_ms as f64 / 1e3).encode(family.encode_family(&labels(&peer))?)?;
            }
        }
        Ok(())
    }
}

fn labels(peer: &PeerStats) -> [(&'static str, String); 1] {
    [("peer", peer.name.clone())]
}
