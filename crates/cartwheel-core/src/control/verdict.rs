//! The verdict on one node: the evidence against it and the status that follows.

use std::time::Duration;

use crate::cluster::liveness::{PeerStatus, Status, Why};
use crate::value::hlc::WallMs;
use crate::value::time::{Instant, Now};

/// How many times a node may fail before it is held suspect after it recovers.
const FAILURES_FREE: u32 = 2;
/// How many failures are counted at most.
const FAILURES_MAX: u32 = 6;
/// How long it takes until one failure no longer counts.
const FAILURE_EXPIRES_AFTER: Duration = Duration::from_secs(30);
/// How long a node that answers again stays suspect after its third failure. Each further failure doubles it.
const HOLD: Duration = Duration::from_secs(2);

/// The evidence against a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// Set while it is down, with the reason.
    pub(super) down: Option<Why>,
    /// Set while it is suspected and has not answered, with the reason.
    pub(super) suspicion: Option<Why>,
    /// Since when it is suspected.
    pub(super) suspected_at: Instant,
    /// Whether the connection to it is lost.
    pub(super) link_lost: bool,
    /// Whether any message of it was ever received.
    pub(super) heard: bool,
    /// How often it failed of late, and when that count last changed.
    failures: u32,
    counted_at: Instant,
    /// Set while it stays suspect although it answers (flapping).
    pub(super) held_until: Option<Instant>,
    peer_status: PeerStatus,
}

impl Verdict {
    /// A verdict without evidence.
    pub(super) const fn new(wall: WallMs) -> Self {
        Self {
            down: None,
            suspicion: None,
            suspected_at: Instant(0),
            link_lost: false,
            heard: false,
            failures: 0,
            counted_at: Instant(0),
            held_until: None,
            peer_status: PeerStatus { status: Status::Alive, since: wall, why: Why::NotHeardYet },
        }
    }

    /// Suspects the node, if it is not suspected yet.
    pub(super) fn suspect(&mut self, now: Instant, why: Why) {
        if self.suspicion.replace(why).is_none() {
            self.suspected_at = now;
        }
    }

    /// The node has responded.
    pub(super) const fn on_response(&mut self) {
        self.suspicion = None;
    }

    /// The node has restarted: the evidence against its earlier boot no longer counts.
    pub(super) const fn restarted(&mut self) {
        self.suspicion = None;
        self.down = None;
    }

    /// Whether it must answer before it counts as alive again.
    pub(super) const fn is_unresponsive(&self) -> bool {
        self.down.is_some() || self.suspicion.is_some()
    }

    const fn charge(&self) -> Option<(Status, Why)> {
        match (self.down, self.link_lost, self.suspicion) {
            (Some(why), ..) => Some((Status::Down, why)),
            (None, true, _) => Some((Status::Suspect, Why::ConnectionLost)),
            (None, false, Some(why)) => Some((Status::Suspect, why)),
            (None, false, None) => None,
        }
    }

    /// The status of the node now.
    pub(super) fn judge(&mut self, now: Now) -> PeerStatus {
        let has_charge = !matches!(
            self.peer_status,
            PeerStatus { status: Status::Alive, .. } | PeerStatus { why: Why::Flapping, .. }
        );
        let charge = self.charge();
        match (has_charge, charge.is_some()) {
            (false, true) => self.count_failure(now.instant),
            (true, false) => self.hold(now.instant),
            _ => {}
        }
        self.held_until = self.held_until.filter(|&until| charge.is_none() && now.instant < until);
        let (status, why) = match charge {
            Some(charge) => charge,
            None if self.held_until.is_some() => (Status::Suspect, Why::Flapping),
            None if self.heard => (Status::Alive, Why::Heard),
            None => (Status::Alive, Why::NotHeardYet),
        };
        let since = if status == self.peer_status.status { self.peer_status.since } else { now.wall };
        self.peer_status = PeerStatus { status, since, why };
        self.peer_status
    }

    fn count_failure(&mut self, now: Instant) {
        let expired = now.since(self.counted_at).as_micros() / FAILURE_EXPIRES_AFTER.as_micros();
        self.failures = self.failures.saturating_sub(expired.min(u128::from(FAILURES_MAX)) as u32);
        self.failures = (self.failures + 1).min(FAILURES_MAX);
        self.counted_at = now;
    }

    fn hold(&mut self, now: Instant) {
        if self.failures > FAILURES_FREE {
            self.held_until = Some(now + HOLD * (1 << (self.failures - FAILURES_FREE - 1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { instant: Instant(seconds * 1_000_000), wall: WallMs(seconds * 1_000) }
    }

    /// Fails at one second and answers at the next; returns the status after that.
    fn flap(verdict: &mut Verdict, seconds: u64) -> PeerStatus {
        verdict.suspect(at(seconds).instant, Why::ProbeUnanswered);
        assert_eq!(verdict.judge(at(seconds)).status, Status::Suspect);
        verdict.on_response();
        verdict.judge(at(seconds + 1))
    }

    #[test]
    fn a_flapping_node_is_held_suspect_for_a_while() {
        let mut verdict = Verdict::new(WallMs(0));
        verdict.heard = true;
        assert_eq!(flap(&mut verdict, 1).status, Status::Alive);
        assert_eq!(flap(&mut verdict, 3).status, Status::Alive);
        let third = flap(&mut verdict, 5);
        assert_eq!((third.status, third.why), (Status::Suspect, Why::Flapping));
        assert_eq!(verdict.judge(at(7)).status, Status::Suspect);
        assert_eq!(verdict.judge(at(8)).status, Status::Alive, "2 s later");
        for failure in 0..20 {
            assert_eq!(flap(&mut verdict, 10 + 2 * failure).why, Why::Flapping);
        }
        assert_eq!(verdict.judge(at(49 + 15)).status, Status::Suspect);
        assert_eq!(verdict.judge(at(49 + 16)).status, Status::Alive, "no hold is longer than 16 s");
        assert_eq!(flap(&mut verdict, 60 + 7 * 30).why, Why::Heard, "failures are forgotten in time");
    }

    #[test]
    fn since_is_when_the_status_changed_not_its_reason() {
        let mut verdict = Verdict::new(WallMs(0));
        verdict.link_lost = true;
        assert_eq!(verdict.judge(at(1)).since, WallMs(1_000));
        verdict.suspect(at(2).instant, Why::ProbeUnanswered);
        verdict.link_lost = false;
        let peer_status = verdict.judge(at(2));
        assert_eq!((peer_status.since, peer_status.why), (WallMs(1_000), Why::ProbeUnanswered));
        verdict.down = Some(Why::SuspicionConfirmed);
        let peer_status = verdict.judge(at(3));
        assert_eq!((peer_status.status, peer_status.since), (Status::Down, WallMs(3_000)));
    }
}
