//! When which node could not be reached from where, because a scenario made it so. That such a node gives no answer is no refusal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// All outages of a scenario.
#[derive(Debug, Default)]
pub struct Outages(Mutex<Vec<Outage>>);

#[derive(Debug)]
struct Outage {
    endpoint: String,
    /// Which zones' clients it cannot be reached by.
    zones: Vec<usize>,
    begun: Instant,
    ended: Option<Instant>,
}

impl Outages {
    /// From now on clients of `zones` may get no answer from the node at `endpoint`.
    pub fn begin(&self, endpoint: &str, zones: &[usize]) {
        let outage =
            Outage { endpoint: endpoint.to_owned(), zones: zones.to_vec(), begun: Instant::now(), ended: None };
        self.all().push(outage);
    }

    /// From now on the node at `endpoint` must answer.
    pub fn end(&self, endpoint: &str) {
        let now = Instant::now();
        self.all().iter_mut().filter(|outage| outage.endpoint == endpoint).for_each(|outage| {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_outage_excuses_what_overlaps_it_and_nothing_else() {
        let outages = Outages::default();
        let before = Instant::now();
        outages.begin("a", &[1]);
        let during = Instant::now();
        assert!(outages.touched("a", 1, before, during));
        assert!(!outages.touched("a", 0, before, during), "another zone can reach it");
        assert!(!outages.touched("b", 1, before, during));
        outages.end("a");
        let after = Instant::now() + Duration::from_millis(1);
        assert!(outages.touched("a", 1, during, after), "it began while the node was away");
        assert!(!outages.touched("a", 1, after, after));
        outages.begin("a", &[1]);
        outages.end("a");
        assert!(outages.touched("a", 1, before, after), "the first end stays the first");
    }
}
