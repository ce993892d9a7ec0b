//! The times at which a scenario makes nodes unreachable. A missing response then is not a refusal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// All outages and excuses of a scenario.
#[derive(Debug, Default)]
pub struct Outages {
    outages: Mutex<Vec<Outage>>,
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
    /// The zones whose clients cannot reach it.
    zones: Vec<usize>,
    begun: Instant,
    ended: Option<Instant>,
}

/// A time in which a node may answer with errors.
#[derive(Debug)]
struct Excuse {
    /// The node; `None` for all nodes.
    endpoint: Option<String>,
    begun: Instant,
    ended: Option<Instant>,
}

impl Outages {
    /// Excuses refusals from now on, of one node or of all: its clock is off, or too few nodes can be reached.
    pub fn excuse(&self, endpoint: Option<&str>) {
        let excuse = Excuse { endpoint: endpoint.map(str::to_owned), begun: Instant::now(), ended: None };
        locked(&self.excuses).push(excuse);
    }

    /// Ends an excuse of one node or of all.
    pub fn end_excuse(&self, endpoint: Option<&str>) {
        let now = Instant::now();
        let mut all = locked(&self.excuses);
        for excuse in all.iter_mut().filter(|excuse| excuse.endpoint.as_deref() == endpoint) {
            excuse.ended.get_or_insert(now);
        }
    }

    /// Ends all excuses.
    pub fn end_all_excuses(&self) {
        let now = Instant::now();
        locked(&self.excuses).iter_mut().for_each(|excuse| {
            excuse.ended.get_or_insert(now);
        });
    }

    /// Whether a request may have been refused: one to the node at `endpoint`, or to any node if that is `None`.
    pub fn excused(&self, endpoint: Option<&str>, begun: Instant, ended: Instant) -> bool {
        locked(&self.excuses).iter().any(|excuse| {
            (excuse.endpoint.is_none() || endpoint.is_some_and(|node| excuse.endpoint.as_deref() == Some(node)))
                && excuse.begun <= ended
                && excuse.ended.is_none_or(|over| begun <= over)
        })
    }

    /// Begins an outage: clients in `zones` may get no response from the node at `endpoint`.
    pub fn begin(&self, endpoint: &str, zones: &[usize], cause: Cause) {
        let outage =
            Outage { endpoint: endpoint.to_owned(), cause, zones: zones.to_vec(), begun: Instant::now(), ended: None };
        self.all().push(outage);
    }

    /// Ends the outages of a node with this cause. Outages with another cause go on.
    pub fn end(&self, endpoint: &str, cause: Cause) {
        let now = Instant::now();
        let mut all = self.all();
        let over = all.iter_mut().filter(|outage| outage.endpoint == endpoint && outage.cause == cause);
        over.for_each(|outage| {
            outage.ended.get_or_insert(now);
        });
    }

    /// Whether the node at `endpoint` could not be reached from `zone` at some time between `begun` and `ended`.
    pub fn overlaps(&self, endpoint: &str, zone: usize, begun: Instant, ended: Instant) -> bool {
        self.all().iter().any(|outage| {
            outage.endpoint == endpoint
                && outage.zones.contains(&zone)
                && outage.begun <= ended
                && outage.ended.is_none_or(|over| begun <= over)
        })
    }

    fn all(&self) -> MutexGuard<'_, Vec<Outage>> {
        locked(&self.outages)
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
    fn an_outage_excuses_only_requests_that_overlap_it() {
        let outages = Outages::default();
        let before = Instant::now();
        outages.begin("a", &[1], Cause::Process);
        let during = Instant::now();
        assert!(outages.overlaps("a", 1, before, during));
        assert!(!outages.overlaps("a", 0, before, during), "another zone can reach it");
        assert!(!outages.overlaps("b", 1, before, during));
        outages.end("a", Cause::Network);
        assert!(outages.overlaps("a", 1, Instant::now(), Instant::now()), "its process is still dead");
        outages.end("a", Cause::Process);
        let after = Instant::now() + Duration::from_millis(1);
        assert!(outages.overlaps("a", 1, during, after), "the request began during the outage");
        assert!(!outages.overlaps("a", 1, after, after));
        outages.begin("a", &[1], Cause::Process);
        outages.end("a", Cause::Process);
        assert!(outages.overlaps("a", 1, before, after), "a second outage does not move the first one's end");
    }

    #[test]
    fn an_excuse_of_all_nodes_covers_each_of_them_but_not_vice_versa() {
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
