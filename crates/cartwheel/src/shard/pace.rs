//! How many clients' requests a shard has under way at most: as many as it can serve without letting them queue.
//!
//! A request that waits at every turn that it needs, here and at its replicas, comes too late for its client while it costs as much as
//! one in time. So the limit follows the time that requests
//! wait to be taken up, beyond what syncs cost: it falls while that is too long, and grows while it is not and all of it is used. How
//! long peers take to answer has no part in it: a dead one must not make this node refuse what others could serve.

use std::time::Duration;

use cartwheel_core::time::Instant;

/// The least and the most requests under way.
const LIMIT_MIN: usize = 32;
const LIMIT_MAX: usize = 4_096;
/// What it begins with.
pub(super) const LIMIT_FIRST: usize = 256;
/// How long requests may wait on average until the shard takes them up.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// How often the limit is looked at, and after how many requests at the earliest.
const ADJUST_EVERY: Duration = Duration::from_millis(100);
const REQUESTS_MIN: u32 = 16;

/// What was seen since the limit was last looked at.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Instant,
    waited: Duration,
    requests: u32,
    committing: Duration,
    turns: u32,
    most_under_way: usize,
}

impl Pace {
    /// A request was taken up after it had waited so long; so many are under way.
    pub(super) fn request(&mut self, waited: Duration, under_way: usize) {
        self.waited += waited;
        self.requests += 1;
        self.most_under_way = self.most_under_way.max(under_way);
    }

    /// A turn has ended that spent so much time on commits.
    pub(super) fn turn(&mut self, committing: Duration) {
        self.committing += committing;
        self.turns += 1;
    }

    /// The limit from now on, if it is time to look at it.
    pub(super) fn adjust(&mut self, now: Instant, limit: usize) -> Option<usize> {
        if now.since(self.since) < ADJUST_EVERY || self.requests < REQUESTS_MIN {
            return None;
        }
        let seen = std::mem::replace(self, Self { since: now, ..Self::default() });
        let wait = (seen.waited / seen.requests).saturating_sub(seen.committing / seen.turns.max(1));
        let limit = if wait > WAIT_MAX {
            let used = limit.min(seen.most_under_way);
            used - used / 8
        } else if seen.most_under_way >= limit / 4 * 3 {
            limit + limit / 16 + 1
        } else {
            limit
        };
        Some(limit.clamp(LIMIT_MIN, LIMIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The limit after so many looks at a shard that has so many requests under way.
    fn after(looks: u64, mut limit: usize, under_way: usize, waited: Duration, committing: Duration) -> usize {
        let mut pace = Pace::default();
        for look in 1..=looks {
            (0..100).for_each(|_| pace.request(waited, under_way));
            pace.turn(committing);
            limit = pace.adjust(Instant(look * 100_000), limit).unwrap();
        }
        limit
    }

    #[test]
    fn it_falls_while_requests_wait_and_grows_while_all_of_it_is_used() {
        assert_eq!(after(1, 256, 256, ms(20), ms(0)), 224);
        assert_eq!(after(1, 256, 80, ms(20), ms(0)), 70, "what is not used does not help");
        assert_eq!(after(100, 256, 256, ms(20), ms(0)), LIMIT_MIN);
        assert_eq!(after(1, 256, 256, ms(2), ms(0)), 273);
        assert_eq!(after(100, 256, 10, ms(2), ms(0)), 256, "nobody asks for more");
        assert_eq!(after(100, 256, 9_999, ms(2), ms(0)), LIMIT_MAX);
    }

    #[test]
    fn a_slow_disk_is_no_queue() {
        assert_eq!(after(10, 256, 100, ms(20), ms(30)), 256);
    }

    #[test]
    fn little_says_nothing() {
        let mut pace = Pace::default();
        pace.request(ms(100), 1);
        assert_eq!(pace.adjust(Instant(1_000_000), 256), None);
        (0..REQUESTS_MIN).for_each(|_| pace.request(ms(100), 1));
        assert_eq!(pace.adjust(Instant(99_000), 256), None);
        assert!(pace.adjust(Instant(100_000), 256).is_some());
    }
}
