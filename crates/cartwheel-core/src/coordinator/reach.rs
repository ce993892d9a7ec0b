//! Response times of a node's peers, as its own requests see them, and which peers have stopped answering.
//!
//! Failure detection takes seconds to tell a dead node from a slow one, and a request cannot wait for that. A peer that
//! is silent for longer than its responses usually take is avoided at once, and probed now and then until it answers
//! again.
//!
//! Beside that it measures, for [`crate::cluster::latency`], how long reads and writes take at each peer: one request of each kind at a time,
//! from when it is sent until it is answered, whatever was answered meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::latency::RoundTrips;
use crate::message::RequestId;
use crate::value::dot::NodeId;
use crate::value::time::Instant;

/// How long to wait for a peer that has never answered.
const PATIENCE: Duration = Duration::from_millis(50);
/// Below this, a scheduling delay looks like a failure. Above the maximum, a request waits too long.
const PATIENCE_MIN: Duration = Duration::from_millis(10);
const PATIENCE_MAX: Duration = Duration::from_millis(500);
/// How long to wait before a late peer is probed again, at first and at most.
const PROBE_AFTER: Duration = Duration::from_millis(100);
const PROBE_AFTER_MAX: Duration = Duration::from_secs(1);

/// The response times of the peers.
#[derive(Debug, Default)]
pub struct Reach(BTreeMap<NodeId, Peer>);

/// A kind of request whose round trips are measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measured {
    /// A read of a replica.
    Read,
    /// A state that a home replica is to store.
    Write,
}

/// After this time a request that was not answered is no longer measured.
const MEASURED_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Peer {
    /// The mean response time and its mean deviation (Jacobson's algorithm), in microseconds; none before the first
    /// response.
    round_trip_us: Option<(u64, u64)>,
    /// The first request since the peer last answered.
    unanswered: Option<(RequestId, Instant)>,
    probe_at: Instant,
    probe_after: Duration,
    /// The read and the write that are being measured.
    measuring: [Option<(RequestId, Instant)>; 2],
    round_trips: RoundTrips,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            round_trip_us: None,
            unanswered: None,
            probe_at: Instant::default(),
            probe_after: PROBE_AFTER,
            measuring: [None; 2],
            round_trips: RoundTrips::default(),
        }
    }
}

impl Peer {
    fn patience(&self) -> Duration {
        let estimated = self.round_trip_us.map(|(mean, deviation)| Duration::from_micros(mean + 4 * deviation));
        estimated.map_or(PATIENCE, |estimated| estimated.clamp(PATIENCE_MIN, PATIENCE_MAX))
    }

    fn is_late(&self, now: Instant) -> bool {
        self.unanswered.is_some_and(|(_, at)| now.since(at) > self.patience())
    }

    /// Ends the measurement of the request, if it is measured.
    fn measured(&mut self, request_id: RequestId, now: Instant) {
        for (measuring, latencies) in
            self.measuring.iter_mut().zip([&mut self.round_trips.reads, &mut self.round_trips.writes])
        {
            if let Some((measured, at)) = *measuring
                && measured == request_id
            {
                latencies.record(now.since(at));
                *measuring = None;
            }
        }
    }

    fn learn(&mut self, took: Duration) {
        let took = took.as_micros() as u64;
        self.round_trip_us = Some(match self.round_trip_us {
            None => (took, took / 2),
            Some((mean, deviation)) => ((7 * mean + took) / 8, (3 * deviation + mean.abs_diff(took)) / 4),
        });
    }
}

impl Reach {
    /// Records a request to `node`.
    pub fn on_request(&mut self, node: NodeId, request_id: RequestId, now: Instant) {
        self.0.entry(node).or_default().unanswered.get_or_insert((request_id, now));
    }

    /// Measures a request of this kind that is being sent to `node`, unless one is being measured.
    pub fn measure(&mut self, node: NodeId, kind: Measured, request_id: RequestId, now: Instant) {
        let measuring = &mut self.0.entry(node).or_default().measuring[kind as usize];
        if measuring.is_none_or(|(_, at)| now.since(at) > MEASURED_WITHIN) {
            *measuring = Some((request_id, now));
        }
    }

    /// The measured round trips to each peer.
    pub fn round_trips(&self) -> impl Iterator<Item = (NodeId, &RoundTrips)> {
        self.0.iter().map(|(&node, peer)| (node, &peer.round_trips))
    }

    /// Records a response of `node`, to any request.
    pub fn on_response(&mut self, node: NodeId, request_id: RequestId, now: Instant) {
        let Some(peer) = self.0.get_mut(&node) else { return };
        peer.measured(request_id, now);
        if let Some((unanswered, at)) = peer.unanswered.take()
            && unanswered == request_id
        {
            peer.learn(now.since(at));
        }
        peer.probe_after = PROBE_AFTER;
    }

    /// How long a response of `node` is worth waiting for: its mean response time and four times the deviation, within
    /// bounds.
    pub fn patience(&self, node: NodeId) -> Duration {
        self.0.get(&node).map_or(PATIENCE, Peer::patience)
    }

    /// Whether `node` has left a request unanswered for longer than that and has answered nothing else meanwhile.
    pub fn is_late(&self, node: NodeId, now: Instant) -> bool {
        self.0.get(&node).is_some_and(|peer| peer.is_late(now))
    }

    /// Whether to send to `node` now. A late node is sent a request only now and then, to see whether it answers again.
    pub fn may_send(&mut self, node: NodeId, now: Instant) -> bool {
        let Some(peer) = self.0.get_mut(&node).filter(|peer| peer.is_late(now)) else { return true };
        if now < peer.probe_at {
            return false;
        }
        peer.probe_at = now + peer.probe_after;
        peer.probe_after = (peer.probe_after * 2).min(PROBE_AFTER_MAX);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Requester;

    const PEER: NodeId = NodeId::new(1);

    fn request_id(operation: u64) -> RequestId {
        RequestId { requester: Requester::Coordinator, operation, round: 1 }
    }

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    #[test]
    fn a_peer_that_does_not_answer_is_avoided_and_probed_until_it_does() {
        let mut reach = Reach::default();
        reach.on_request(PEER, request_id(1), at(0));
        assert!(!reach.is_late(PEER, at(50)));
        assert!(reach.is_late(PEER, at(51)));
        let probes: Vec<u64> = (51..1_000).filter(|&ms| reach.may_send(PEER, at(ms))).collect();
        assert_eq!(probes, [51, 151, 351, 751]);
        reach.on_response(PEER, request_id(9), at(1_000));
        assert!(!reach.is_late(PEER, at(2_000)), "any response shows that it is alive");
    }

    #[test]
    fn one_request_of_each_kind_is_measured_at_a_time_until_its_own_response() {
        let mut reach = Reach::default();
        reach.measure(PEER, Measured::Write, request_id(1), at(0));
        reach.measure(PEER, Measured::Read, request_id(2), at(1));
        reach.measure(PEER, Measured::Write, request_id(3), at(2));
        reach.on_response(PEER, request_id(2), at(5));
        reach.on_response(PEER, request_id(3), at(6));
        reach.on_response(PEER, request_id(1), at(20));
        reach.on_response(PEER, request_id(1), at(30));
        let (_, round_trips) = reach.round_trips().next().unwrap();
        assert_eq!((round_trips.reads.total(), round_trips.writes.total()), (1, 1));
        let millis = |latencies: &crate::cluster::latency::Latencies| latencies.quantile(0.5).unwrap() / 1_000.0;
        assert!(
            (3.5..4.6).contains(&millis(&round_trips.reads)) && (18.0..22.0).contains(&millis(&round_trips.writes))
        );
        reach.measure(PEER, Measured::Write, request_id(4), at(100));
        reach.measure(PEER, Measured::Write, request_id(5), at(20_000));
        reach.on_response(PEER, request_id(5), at(20_001));
        assert_eq!(reach.round_trips().next().unwrap().1.writes.total(), 2, "the lost one is no longer waited for");
    }

    #[test]
    fn patience_follows_response_times() {
        let mut reach = Reach::default();
        for number in 0..100 {
            reach.on_request(PEER, request_id(number), at(100 * number));
            reach.on_response(PEER, request_id(number), at(100 * number + 20));
        }
        assert!((20..25).contains(&(reach.patience(PEER).as_millis() as u64)), "{:?}", reach.patience(PEER));
        reach.on_request(PEER, request_id(100), at(20_000));
        reach.on_response(PEER, request_id(7), at(30_000));
        assert!(
            reach.patience(PEER) < Duration::from_millis(25),
            "a response to another request says nothing about the time"
        );
    }
}
