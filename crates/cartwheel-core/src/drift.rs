//! Whether this node's wall clock can be trusted, by comparison with its peers'.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dot::NodeId;
use crate::hlc::WallMs;
use crate::time::{Instant, Now};

/// Off by more than this, a clock is worth an alarm.
pub const ALARM_MS: u64 = 500;
/// Off by more than this from most of the cluster, a node takes no writes: they would win over later ones, or lose to earlier ones.
pub const REFUSAL_MS: u64 = 10_000;

const WINDOW: Duration = Duration::from_secs(10);

/// What is known of the peers' clocks.
///
/// A message says what its sender's clock read, some delay ago. The greatest difference seen within a window belongs to the
/// smallest delay and is kept. It is kept against this node's monotonic clock, so a jump of the local wall clock shows at once.
#[derive(Clone, Debug, Default)]
pub struct Drift {
    peers: BTreeMap<NodeId, Ahead>,
}

/// A peer's wall clock less this node's monotonic clock, in milliseconds: the greatest of this window and of the one before.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    window_began: Instant,
    now_ms: i64,
    before_ms: i64,
}

/// How this node's clock compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// The median peer's clock less this node's, in milliseconds.
    pub offset_ms: i64,
    /// Whether most of the cluster is further off than [`REFUSAL_MS`].
    pub refuses: bool,
}

impl Comparison {
    /// Whether an operator should know.
    pub const fn alarms(self) -> bool {
        self.refuses || self.offset_ms.unsigned_abs() > ALARM_MS
    }
}

impl Drift {
    /// Takes in what a message of `peer` says its clock read.
    pub fn heard(&mut self, peer: NodeId, wall: WallMs, now: Now) {
        let ahead_ms = signed(wall.0) - monotonic_ms(now.instant);
        let known = self.peers.entry(peer).or_insert(Ahead {
            window_began: now.instant,
            now_ms: ahead_ms,
            before_ms: ahead_ms,
        });
        if now.instant.since(known.window_began) > WINDOW {
            *known = Ahead { window_began: now.instant, now_ms: ahead_ms, before_ms: known.now_ms };
        }
        known.now_ms = known.now_ms.max(ahead_ms);
    }

    /// How this node's clock compares, if an operator should know. Asked at every step, so it sorts only when some clock is off.
    pub fn alarm(&self, now: Now, members: usize) -> Option<Comparison> {
        if self.offsets(now).all(|offset_ms| offset_ms.unsigned_abs() <= ALARM_MS) {
            return None;
        }
        self.compare(now, members).filter(|comparison| comparison.alarms())
    }

    /// How this node's clock compares with those of the peers heard lately, in a cluster of `members`; none if it heard none.
    pub fn compare(&self, now: Now, members: usize) -> Option<Comparison> {
        let mut offsets: Vec<i64> = self.offsets(now).collect();
        offsets.sort_unstable();
        let median = *offsets.get(offsets.len() / 2)?;
        let far = offsets.iter().filter(|offset| offset.unsigned_abs() > REFUSAL_MS).count();
        Some(Comparison { offset_ms: median, refuses: 2 * far > members })
    }

    /// Whether most of the cluster, this node included, was heard lately and is not further off than [`REFUSAL_MS`].
    pub fn is_borne_out(&self, now: Now, members: usize) -> bool {
        let near = self.offsets(now).filter(|offset| offset.unsigned_abs() <= REFUSAL_MS).count();
        2 * (near + 1) > members
    }

    /// The clocks of the peers heard lately less this node's, in milliseconds.
    fn offsets(&self, now: Now) -> impl Iterator<Item = i64> + '_ {
        let own_ms = signed(now.wall.0) - monotonic_ms(now.instant);
        let lately = move |ahead: &&Ahead| now.instant.since(ahead.window_began) <= 2 * WINDOW;
        self.peers.values().filter(lately).map(move |ahead| ahead.now_ms.max(ahead.before_ms) - own_ms)
    }
}

fn monotonic_ms(instant: Instant) -> i64 {
    signed(instant.0 / 1_000)
}

fn signed(ms: u64) -> i64 {
    // A forged clock reading near the end of time must not overflow a difference.
    i64::try_from(ms).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64, wall_ms: u64) -> Now {
        Now { instant: Instant(seconds * 1_000_000), wall: WallMs(wall_ms) }
    }

    fn after_hearing(peers_wall_ms: &[u64], own: Now) -> Option<Comparison> {
        let mut drift = Drift::default();
        for (peer, &wall_ms) in peers_wall_ms.iter().enumerate() {
            drift.heard(NodeId::new(peer as u64), WallMs(wall_ms), own);
        }
        let comparison = drift.compare(own, peers_wall_ms.len() + 1);
        let alarm = comparison.filter(|comparison| comparison.alarms());
        assert_eq!(drift.alarm(own, peers_wall_ms.len() + 1), alarm, "the short way says the same");
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
            let (mut drift, own) = (Drift::default(), now(1, 100_000));
            for (peer, &wall_ms) in peers.iter().enumerate() {
                drift.heard(NodeId::new(peer as u64), WallMs(wall_ms), own);
            }
            drift.is_borne_out(own, members)
        };
        assert!(borne_out(&[], 1) && borne_out(&[100_500], 2) && borne_out(&[109_000, 300_000], 3));
        assert!(!borne_out(&[], 2), "nobody was heard");
        assert!(!borne_out(&[120_000], 2), "between two there is no telling whose is off");
        assert!(!borne_out(&[120_000, 300_000], 3), "all differ");
    }

    #[test]
    fn a_delayed_message_is_not_a_slow_clock() {
        let mut drift = Drift::default();
        let peer = NodeId::new(1);
        drift.heard(peer, WallMs(100_000), now(1, 100_000));
        drift.heard(peer, WallMs(100_000), now(10, 109_000));
        assert_eq!(drift.compare(now(10, 109_000), 2), Some(Comparison { offset_ms: 0, refuses: false }));
    }

    #[test]
    fn a_local_jump_shows_at_once() {
        let mut drift = Drift::default();
        drift.heard(NodeId::new(1), WallMs(100_000), now(1, 100_000));
        drift.heard(NodeId::new(2), WallMs(100_000), now(1, 100_000));
        assert!(drift.compare(now(2, 131_000), 3).unwrap().refuses);
        assert!(!drift.compare(now(2, 101_000), 3).unwrap().alarms());
    }
}
