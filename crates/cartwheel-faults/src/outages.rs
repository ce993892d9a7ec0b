//! When which node could not be reached from where, because a scenario made it so. That such a node gives no answer is no refusal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// All outages of a scenario.
#[derive(Debug, Default)]
pub struct Outages {
    silences: Mutex<Vec<Outage>>,
    excuses: Mutex<Vec<Excuse>>,
}

/// Why a node cannot be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Its process is dead, paused or stopping.
    Process,
    /// The network is cut.
    Network,
}

#[derive(Debug)]
struct Outage {
    endpoint: String,
    cause: Cause,
    /// Which zones' clients it cannot be reached by.
    zones: Vec<usize>,
    begun: Instant,
    ended: Option<Instant>,
}

/// A time in which even answers may be errors.
#[derive(Debug)]
struct Excuse {
    /// Of which node; of all if none.
    endpoint: Option<String>,
    begun: Instant,
    ended: Option<Instant>,
}

impl Outages {
    /// From now on the node at `endpoint`, or every node, may refuse: its clock is off, or too few nodes are within reach.
    pub fn excuse(&self, endpoint: Option<&str>) {
        let excuse = Excuse { endpoint: endpoint.map(str::to_owned), begun: Instant::now(), ended: None };
        locked(&self.excuses).push(excuse);
    }

    /// That is over.
    pub fn end_excuse(&self, endpoint: Option<&str>) {
        let now = Instant::now();
        let mut all = locked(&self.excuses);
        for excuse in all.iter_mut().filter(|excuse| excuse.endpoint.as_deref() == endpoint) {
            excuse.ended.get_or_insert(now);
        }
    }

    /// Nothing is excused any more.
    pub fn end_all_excuses(&self) {
        let now = Instant::now();
        locked(&self.excuses).iter_mut().for_each(|excuse| {
            excuse.ended.get_or_insert(now);
        });
    }

    /// Whether a request to the node at `endpoint`, or to whichever node, may have been refused.
    pub fn excused(&self, endpoint: Option<&str>, begun: Instant, ended: Instant) -> bool {
        locked(&self.excuses).iter().any(|excuse| {
            (excuse.endpoint.is_none() || endpoint.is_some_and(|it| excuse.endpoint.as_deref() == Some(it)))
                && excuse.begun <= ended
                && excuse.ended.is_none_or(|over| begun <= over)
        })
    }

    /// From now on clients of `zones` may get no answer from the node at `endpoint`.
    pub fn begin(&self, endpoint: &str, zones: &[usize], cause: Cause) {
        let outage =
            Outage { endpoint: endpoint.to_owned(), cause, zones: zones.to_vec(), begun: Instant::now(), ended: None };
        self.all().push(outage);
    }

    /// From now on this is no reason any more why the node at `endpoint` should not answer.
    pub fn end(&self, endpoint: &str, cause: Cause) {
        let now = Instant::now();
        let mut all = self.all();
        let over = all.iter_mut().filter(|outage| outage.endpoint == endpoint && outage.cause == cause);
        over.for_each(|outage| {
            outage.ended.get_or_insert(now);
        });
    }

    /// Whether the node at `endpoint` could not be reached from `zone` at any time from `begun` to `ended`.
    pub fn touched(&self, endpoint: &str, zone: usize, begun: Instant, ended: Instant) -> bool {
        self.all().iter().any(|outage| {
            outage.endpoint == endpoint
                && outage.zones.contains(&zone)
                && outage.begun <= ended
                && outage.ended.is_none_or(|over| begun <= over)
        })
    }

    fn all(&self) -> MutexGuard<'_, Vec<Outage>> {
        locked(&self.silences)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_outage_excuses_what_overlaps_it_and_nothing_else() {
        let outages = Outages::default();
        let before = Instant::now();
        outages.begin("a", &[1], Cause::Process);
        let during = Instant::now();
        assert!(outages.touched("a", 1, before, during));
        assert!(!outages.touched("a", 0, before, during), "another zone can reach it");
        assert!(!outages.touched("b", 1, before, during));
        outages.end("a", Cause::Network);
        assert!(outages.touched("a", 1, Instant::now(), Instant::now()), "it is dead still");
        outages.end("a", Cause::Process);
        let after = Instant::now() + Duration::from_millis(1);
        assert!(outages.touched("a", 1, during, after), "it began while the node was away");
        assert!(!outages.touched("a", 1, after, after));
        outages.begin("a", &[1], Cause::Process);
        outages.end("a", Cause::Process);
        assert!(outages.touched("a", 1, before, after), "the first end stays the first");
    }

    #[test]
    fn an_excuse_of_all_nodes_is_one_of_each_but_not_the_other_way_round() {
        let outages = Outages::default();
        let now = Instant::now();
        outages.excuse(Some("a"));
        let then = Instant::now();
        assert!(outages.excused(Some("a"), now, then));
        assert!(!outages.excused(Some("b"), now, then) && !outages.excused(None, now, then));
        outages.excuse(None);
        assert!(outages.excused(Some("b"), now, Instant::now()) && outages.excused(None, now, Instant::now()));
        outages.end_excuse(None);
        let after = Instant::now() + Duration::from_millis(1);
        assert!(!outages.excused(None, after, after) && outages.excused(Some("a"), after, after));
    }
}
