use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::peers::{Board, PeerStats, ProtocolError};

/// The connections to peers, collected on each scrape.
#[derive(Debug)]
pub(super) struct PeerCollector(pub(super) Board);

impl Collector for PeerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        type Count = fn(&PeerStats) -> u64;
        let counters: [(&str, &str, Count); 7] = [
            ("peer_messages_sent", "Messages sent to a peer.", |peer| peer.sent.messages.load(Ordering::Relaxed)),
            ("peer_sent_bytes", "Bytes of messages sent to a peer.", |peer| peer.sent.bytes.load(Ordering::Relaxed)),
            ("peer_messages_received", "Messages received from a peer.", |peer| {
                peer.received.messages.load(Ordering::Relaxed)
            }),
            ("peer_received_bytes", "Bytes of messages received from a peer.", |peer| {
                peer.received.bytes.load(Ordering::Relaxed)
            }),
            ("exchange_sent_bytes", "Bytes of anti-entropy messages sent to a peer, repairs included.", |peer| {
                peer.exchange_bytes.load(Ordering::Relaxed)
            }),
            (
                "peer_messages_dropped",
                "Messages to a peer that were dropped, without a connection or with a full queue.",
                |peer| peer.dropped.load(Ordering::Relaxed),
            ),
            ("peer_connects", "Connections made to a peer.", |peer| peer.connects.load(Ordering::Relaxed)),
        ];
        for (name, help, count) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for peer in self.0.peers() {
                ConstCounter::new(count(&peer)).encode(family.encode_family(&labels(&peer))?)?;
            }
        }
        let help = "Connections to the peer port that were refused, or closed before a hello.";
        let refusals = encoder.encode_descriptor("peer_refusals", help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.refusals()).encode(refusals)?;
        let help = "Invalid frames and messages from peers, each of which closed its connection.";
        let mut family = encoder.encode_descriptor("peer_protocol_errors", help, None, MetricType::Counter)?;
        for kind in ProtocolError::ALL {
            let labels = [("kind", kind.name())];
            ConstCounter::new(self.0.protocol_errors(kind)).encode(family.encode_family(&labels)?)?;
        }
        let help = "1 while the connection to a peer is open.";
        let mut family = encoder.encode_descriptor("peer_connected", help, None, MetricType::Gauge)?;
        for peer in self.0.peers() {
            let connected = i64::from(peer.link().connected);
            ConstGauge::new(connected).encode(family.encode_family(&labels(&peer))?)?;
        }
        let help = "Version of the protocol in use on the connection to a peer, while it is open.";
        let mut family = encoder.encode_descriptor("peer_protocol", help, None, MetricType::Gauge)?;
        for peer in self.0.peers() {
            if let Some(protocol) = peer.link().protocol {
                ConstGauge::new(i64::from(protocol.0)).encode(family.encode_family(&labels(&peer))?)?;
            }
        }
        let help = "A peer's clock minus this node's, while messages come from the peer.";
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
