//! Trust in this node's wall clock, by comparison with its peers'.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::liveness::Status;
use crate::value::dot::{Incarnation, NodeId};
use crate::value::time::{Instant, Now};

/// An offset above this raises an alarm.
pub const ALARM_MS: u64 = 500;
/// A node whose clock is off by more than this from most of the cluster takes no writes: under last write wins they would win over later
/// ones, or lose to earlier ones.
pub const REFUSAL_MS: u64 = 10_000;

const WINDOW: Duration = Duration::from_secs(10);
/// How long a judgement is valid while no reading changes it: readings expire, and clocks drift slowly.
const JUDGED_EVERY: Duration = Duration::from_millis(100);
/// How far the wall clock may move against the monotonic one, in milliseconds, before it is judged again: the error of rounding.
const ROUNDING_MS: u64 = 1;
/// A wall clock that moved further than this against the monotonic one between two readings, in milliseconds, was set: time servers
/// slew a clock by half a millisecond a second.
const SET_MS: u64 = 100;

/// The readings of the peers' clocks.
///
/// A message bears the readings of its sender's clocks from some delay ago. The greatest difference within a window belongs to the smallest
/// delay, and is kept. It is relative to this node's monotonic clock, so a jump of the local wall clock shows at once. A jump of a peer's
/// wall clock shows against that peer's monotonic clock, so it is not taken for a delay.
#[derive(Clone, Debug, Default)]
pub struct ClockGuard {
    peers: BTreeMap<NodeId, Ahead>,
    judged: Option<Judged>,
    /// This node's wall clock less its monotonic one at the last reading.
    own_ms: Option<i64>,
}

/// A peer's wall clock less this node's monotonic clock, in milliseconds: the greatest of this window and of the one before.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// The boot of the peer that sent the last reading, its monotonic clock then, and its wall clock less that.
    boot: (Incarnation, u32),
    sent: Instant,
    peers_ms: i64,
    window_began: Instant,
    now_ms: i64,
    before_ms: i64,
}

impl Ahead {
    fn greatest_ms(self) -> i64 {
        self.now_ms.max(self.before_ms)
    }
}

/// The judgement of this node's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// The comparison with recent readings, if it is worth an alarm.
    pub alarm: Option<Comparison>,
    /// Whether most of the cluster, this node included, was heard recently and is within [`REFUSAL_MS`].
    pub borne_out: bool,
}

/// A judgement, and what it was based on.
#[derive(Clone, Copy, Debug)]
struct Judged {
    at: Instant,
    /// This node's wall clock less its monotonic one.
    own_ms: i64,
    members: usize,
    judgement: Judgement,
}

/// This node's clock compared with its peers'.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// The median peer's clock less this node's, in milliseconds.
    pub offset_ms: i64,
    /// Whether most of the cluster is further off than [`REFUSAL_MS`].
    pub refuses: bool,
}

impl Comparison {
    /// Whether it is worth an alarm.
    pub const fn alarms(self) -> bool {
        self.refuses || self.offset_ms.unsigned_abs() > ALARM_MS
    }
}

impl ClockGuard {
    /// Takes the readings that a message of `peer`, in this incarnation and boot, bears.
    pub fn heard(&mut self, peer: NodeId, boot: (Incarnation, u32), sent: Now, now: Now) {
        let (ahead_ms, peers_ms) = (signed(sent.wall.0) - monotonic_ms(now.instant), own_ms(sent));
        let fresh = Ahead {
            boot,
            sent: sent.instant,
            peers_ms,
            window_began: now.instant,
            now_ms: ahead_ms,
            before_ms: ahead_ms,
        };
        let was = self.peers.get(&peer).copied();
        let mut known = was.unwrap_or(fresh);
        if known.boot != boot || peers_ms.abs_diff(known.peers_ms) > SET_MS {
            let is_older = known.boot == boot && sent.instant < known.sent;
            if is_older || known.boot.0 == boot.0 && known.boot.1 > boot.1 {
                // A late message from before the peer's clock was set.
                return;
            }
            known = fresh;
        }
        (known.sent, known.peers_ms) = (known.sent.max(sent.instant), peers_ms);
        if now.instant.since(known.window_began) > WINDOW {
            known = Ahead { before_ms: known.now_ms, ..fresh };
        }
        known.now_ms = known.now_ms.max(ahead_ms);
        let counted_ms = was.filter(|was| is_recent(was, now)).map(Ahead::greatest_ms);
        if counted_ms != Some(known.greatest_ms()) {
            self.judged = None;
        }
        self.peers.insert(peer, known);
    }

    /// Whether this node's wall clock was set since the last call.
    pub fn has_jumped(&mut self, now: Now) -> bool {
        let own_ms = own_ms(now);
        let before = self.own_ms.replace(own_ms);
        before.is_some_and(|before| own_ms.abs_diff(before) > SET_MS)
    }

    /// Judges this node's clock in a cluster of `members`. It is called in every step, so the result is kept until a reading changes it or
    /// some time has passed.
    ///
    /// The readings of a peer that is down do not count: if all clocks are set at once while the cluster is cut apart, each side would
    /// compare itself with old readings of the other, and take no writes. The same holds for a suspect peer where a live peer's clock
    /// agrees with this one.
    pub fn judgement(&mut self, now: Now, members: usize, status: impl Fn(NodeId) -> Status) -> Judgement {
        let own_ms = own_ms(now);
        let is_valid = |judged: &Judged| {
            judged.members == members
                && now.instant.since(judged.at) < JUDGED_EVERY
                && own_ms.abs_diff(judged.own_ms) <= ROUNDING_MS
        };
        if let Some(judged) = self.judged.filter(is_valid) {
            return judged.judgement;
        }
        let judgement = self.judge(now, members, status);
        self.judged = Some(Judged { at: now.instant, own_ms, members, judgement });
        judgement
    }

    fn judge(&self, now: Now, members: usize, status: impl Fn(NodeId) -> Status) -> Judgement {
        let (mut off, mut near) = (0, 0);
        for offset_ms in self.offsets(now, &status).map(i64::unsigned_abs) {
            off += usize::from(offset_ms > ALARM_MS);
            near += usize::from(offset_ms <= REFUSAL_MS);
        }
        // The comparison sorts, so it is made only when some clock is off.
        let comparison = if off > 0 { self.compare(now, members, status) } else { None };
        Judgement { alarm: comparison.filter(|comparison| comparison.alarms()), borne_out: 2 * (near + 1) > members }
    }

    /// Compares this node's clock with the recent readings that count ([`Self::judgement`]), in a cluster of `members`; none if there are
    /// none.
    pub fn compare(&self, now: Now, members: usize, status: impl Fn(NodeId) -> Status) -> Option<Comparison> {
        let mut offsets: Vec<i64> = self.offsets(now, &status).collect();
        offsets.sort_unstable();
        let median = *offsets.get(offsets.len() / 2)?;
        let far = offsets.iter().filter(|offset| offset.unsigned_abs() > REFUSAL_MS).count();
        Some(Comparison { offset_ms: median, refuses: 2 * far > members })
    }

    /// The peers' clocks less this node's, in milliseconds, for the recent readings that count.
    fn offsets<'a>(&'a self, now: Now, status: &'a impl Fn(NodeId) -> Status) -> impl Iterator<Item = i64> + 'a {
        let own_ms = own_ms(now);
        let lately = self.peers.iter().filter(move |(_, ahead)| is_recent(ahead, now));
        let lately = lately.map(move |(&peer, ahead)| (status(peer), ahead.greatest_ms() - own_ms));
        let bears_out =
            |(status, offset_ms): (Status, i64)| status == Status::Alive && offset_ms.unsigned_abs() <= REFUSAL_MS;
        let is_borne_out = lately.clone().any(bears_out);
        lately
            .filter(move |(status, _)| match status {
                Status::Alive => true,
                Status::Suspect => !is_borne_out,
                Status::Down => false,
            })
            .map(|(_, offset_ms)| offset_ms)
    }
}

/// Whether a reading is recent.
fn is_recent(ahead: &Ahead, now: Now) -> bool {
    now.instant.since(ahead.window_began) <= 2 * WINDOW
}

/// The local wall clock less the monotonic one, in milliseconds.
fn own_ms(now: Now) -> i64 {
    signed(now.wall.0) - monotonic_ms(now.instant)
}

fn monotonic_ms(instant: Instant) -> i64 {
    signed(instant.0 / 1_000)
}

fn signed(ms: u64) -> i64 {
    // A forged reading near the end of time must not overflow a difference.
    i64::try_from(ms).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::hlc::WallMs;

    const fn all_alive(_: NodeId) -> Status {
        Status::Alive
    }

    fn now(seconds: u64, wall_ms: u64) -> Now {
        Now { instant: Instant(seconds * 1_000_000), wall: WallMs(wall_ms) }
    }

    /// A peer says without delay what its wall clock reads; its monotonic one runs like this node's.
    fn heard(clock_guard: &mut ClockGuard, peer: u64, wall_ms: u64, own: Now) {
        clock_guard.heard(NodeId::new(peer), (Incarnation(1), 1), Now { wall: WallMs(wall_ms), ..own }, own);
    }

    fn after_hearing(peers_wall_ms: &[u64], own: Now) -> Option<Comparison> {
        let mut clock_guard = ClockGuard::default();
        for (peer, &wall_ms) in peers_wall_ms.iter().enumerate() {
            heard(&mut clock_guard, peer as u64, wall_ms, own);
        }
        let comparison = clock_guard.compare(own, peers_wall_ms.len() + 1, all_alive);
        let alarm = comparison.filter(|comparison| comparison.alarms());
        assert_eq!(
            clock_guard.judgement(own, peers_wall_ms.len() + 1, all_alive).alarm,
            alarm,
            "the short way says the same"
        );
        comparison
    }

    #[test]
    fn the_odd_clock_refuses_and_the_others_do_not() {
        let odd = after_hearing(&[100_000, 100_010], now(1, 120_000)).unwrap();
        assert!(odd.refuses && odd.alarms());
        let other = after_hearing(&[120_000, 100_010], now(1, 100_000)).unwrap();
        assert!(!other.refuses);
        let one_of_two = after_hearing(&[120_000], now(1, 100_000)).unwrap();
        assert!(one_of_two.alarms() && !one_of_two.refuses, "between two there is no telling whose is off");
        assert_eq!(after_hearing(&[], now(1, 100_000)), None);
    }

    #[test]
    fn a_clock_is_borne_out_by_most_of_the_cluster() {
        let borne_out = |peers: &[u64], members| {
            let (mut clock_guard, own) = (ClockGuard::default(), now(1, 100_000));
            for (peer, &wall_ms) in peers.iter().enumerate() {
                heard(&mut clock_guard, peer as u64, wall_ms, own);
            }
            clock_guard.judgement(own, members, all_alive).borne_out
        };
        assert!(borne_out(&[], 1) && borne_out(&[100_500], 2) && borne_out(&[109_000, 300_000], 3));
        assert!(!borne_out(&[], 2), "no peer was heard");
        assert!(!borne_out(&[120_000], 2), "between two there is no telling whose is off");
        assert!(!borne_out(&[120_000, 300_000], 3), "all differ");
    }

    #[test]
    fn a_delayed_message_is_not_a_slow_clock() {
        let mut clock_guard = ClockGuard::default();
        let (sent, boot) = (now(1, 100_000), (Incarnation(1), 1));
        clock_guard.heard(NodeId::new(1), boot, sent, now(1, 100_000));
        clock_guard.heard(NodeId::new(1), boot, sent, now(10, 109_000));
        assert_eq!(
            clock_guard.compare(now(10, 109_000), 2, all_alive),
            Some(Comparison { offset_ms: 0, refuses: false })
        );
    }

    #[test]
    fn a_local_jump_shows_at_once() {
        let mut clock_guard = ClockGuard::default();
        heard(&mut clock_guard, 1, 100_000, now(1, 100_000));
        heard(&mut clock_guard, 2, 100_000, now(1, 100_000));
        assert!(clock_guard.compare(now(2, 131_000), 3, all_alive).unwrap().refuses);
        assert!(!clock_guard.compare(now(2, 101_000), 3, all_alive).unwrap().alarms());
    }

    #[test]
    fn what_was_heard_of_peers_that_are_away_is_no_judgement_of_a_jump() {
        let mut clock_guard = ClockGuard::default();
        for peer in 1..=4 {
            heard(&mut clock_guard, peer, 100_000, now(1, 100_000));
        }
        let refuses = |clock_guard: &mut ClockGuard, seconds: u64, status: &dyn Fn(u64) -> Status| {
            let own = now(seconds, 129_000 + 1_000 * seconds);
            let judgement = clock_guard.judgement(own, 5, |peer| status(peer.get()));
            assert!(!judgement.borne_out, "most of the cluster was not heard");
            judgement.alarm.is_some_and(|off| off.refuses)
        };
        let others = |of_others| move |peer: u64| if peer > 1 { of_others } else { Status::Alive };
        assert!(refuses(&mut clock_guard, 2, &others(Status::Suspect)), "no peer bears it out");
        // One of them is in reach and was set as this node was.
        heard(&mut clock_guard, 1, 132_000, now(3, 132_000));
        assert!(refuses(&mut clock_guard, 3, &others(Status::Alive)), "they may be there");
        assert!(!refuses(&mut clock_guard, 4, &others(Status::Suspect)));
        assert!(!refuses(&mut clock_guard, 5, &others(Status::Down)));
        assert!(refuses(&mut clock_guard, 6, &|_| Status::Suspect), "no live peer bears it out");
        assert!(refuses(&mut clock_guard, 7, &|peer| if peer == 1 { Status::Down } else { Status::Alive }));
    }

    #[test]
    fn a_peers_clock_that_is_set_back_counts_at_once_and_what_it_said_before_no_more() {
        let (mut clock_guard, peer) = (ClockGuard::default(), NodeId::new(1));
        let set_back = |seconds: u64| now(seconds, 3_600_000 + 1_000 * seconds);
        clock_guard.heard(peer, (Incarnation(1), 1), now(5, 7_205_000), now(5, 3_605_000));
        clock_guard.heard(peer, (Incarnation(1), 1), set_back(6), now(6, 3_606_000));
        let own = now(7, 3_607_000);
        assert_eq!(clock_guard.compare(own, 2, all_alive).map(|comparison| comparison.offset_ms), Some(0));
        clock_guard.heard(peer, (Incarnation(1), 1), now(4, 7_204_000), own);
        assert_eq!(
            clock_guard.compare(own, 2, all_alive).map(|comparison| comparison.offset_ms),
            Some(0),
            "that was under way"
        );
        // The monotonic clock of a new boot begins anew.
        clock_guard.heard(peer, (Incarnation(1), 2), Now { instant: Instant(1), ..set_back(7) }, own);
        clock_guard.heard(peer, (Incarnation(1), 1), now(6, 7_206_000), own);
        assert_eq!(clock_guard.compare(own, 2, all_alive).map(|comparison| comparison.offset_ms), Some(0));
    }

    #[test]
    fn a_jump_is_noticed_once() {
        let mut clock_guard = ClockGuard::default();
        let readings = [(1, 1_000), (2, 2_000), (3, 3_101), (4, 4_101), (5, 90_000), (6, 91_000), (7, 8_000)];
        let jumps = readings.map(|(seconds, wall_ms)| clock_guard.has_jumped(now(seconds, wall_ms)));
        assert_eq!(jumps, [false, false, true, false, true, false, true]);
    }

    #[test]
    fn a_judgement_follows_what_is_heard_and_grows_old() {
        let mut clock_guard = ClockGuard::default();
        let own = |ms: u64| Now { instant: Instant(ms * 1_000), wall: WallMs(100_000 + ms) };
        assert!(!clock_guard.judgement(own(0), 2, all_alive).borne_out);
        heard(&mut clock_guard, 1, 100_001, own(1));
        assert!(clock_guard.judgement(own(1), 2, all_alive).borne_out, "the first reading of a peer counts at once");
        assert!(!clock_guard.judgement(own(1), 4, all_alive).borne_out, "so does a member more");
        let jumped = Now { wall: WallMs(200_000), ..own(2) };
        assert!(
            !clock_guard.judgement(jumped, 2, all_alive).borne_out
                && clock_guard.judgement(jumped, 2, all_alive).alarm.is_some()
        );
        assert!(clock_guard.judgement(own(3), 2, all_alive).borne_out);
        heard(&mut clock_guard, 1, 130_000, own(4));
        assert!(!clock_guard.judgement(own(4), 2, all_alive).borne_out, "and a clock that jumps");
        let mut clock_guard = ClockGuard::default();
        heard(&mut clock_guard, 1, 100_000, own(0));
        assert!(clock_guard.judgement(own(20_000), 2, all_alive).borne_out);
        assert!(!clock_guard.judgement(own(20_100), 2, all_alive).borne_out, "it was heard too long ago");
    }
}
