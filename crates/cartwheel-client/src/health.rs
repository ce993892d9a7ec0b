//! The nodes that requests had better avoid, because the last ones failed there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a node is avoided after a failure. It doubles with each failed trial, up to [`AVOID_MAX`].
const AVOID: Duration = Duration::from_secs(1);
const AVOID_MAX: Duration = Duration::from_secs(30);

/// The nodes in trouble. In a healthy cluster there are none.
///
/// When the time of a node is up, one request is its trial. The others wait for the result: if the node is frozen, only one of them has to time out.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<HashMap<Arc<str>, Trouble>>);

#[derive(Debug)]
struct Trouble {
    avoid_for: Duration,
    until: Instant,
    is_on_trial: bool,
}

impl Health {
    /// Whether requests may go to the node: it is in no trouble, or its trial is due.
    pub(crate) fn is_clear(&self, endpoint: &str, now: Instant) -> bool {
        self.troubles().get(endpoint).is_none_or(|trouble| now >= trouble.until)
    }

    /// Records that a request goes to the node. If the node is in trouble, the request is its trial.
    pub(crate) fn begin(&self, endpoint: &str, now: Instant) {
        if let Some(trouble) = self.troubles().get_mut(endpoint)
            && now >= trouble.until
        {
            trouble.is_on_trial = true;
            trouble.until = now + trouble.avoid_for;
        }
    }

    /// Records a response of the node.
    pub(crate) fn succeeded(&self, endpoint: &str) {
        let mut troubles = self.troubles();
        if !troubles.is_empty() {
            troubles.remove(endpoint);
        }
    }

    /// Records a failure of the node, which asked for `retry_after`.
    pub(crate) fn failed(&self, endpoint: &Arc<str>, retry_after: Option<Duration>, now: Instant) {
        let mut troubles = self.troubles();
        let trouble = troubles.entry(endpoint.clone()).or_insert(Trouble {
            avoid_for: Duration::ZERO,
            until: now,
            is_on_trial: false,
        });
        // Requests that were under way when the node failed fail too. They say nothing new.
        if now >= trouble.until || trouble.is_on_trial {
            trouble.avoid_for = (trouble.avoid_for * 2).clamp(AVOID, AVOID_MAX);
            trouble.until = now + trouble.avoid_for.max(retry_after.unwrap_or_default().min(AVOID_MAX));
            trouble.is_on_trial = false;
        }
    }

    fn troubles(&self) -> MutexGuard<'_, HashMap<Arc<str>, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_failed_node_is_avoided_until_one_request_succeeds_there() {
        let (health, node, begun) = (Health::default(), Arc::from("a"), Instant::now());
        assert!(health.is_clear(&node, begun));
        for _ in 0..32 {
            health.failed(&node, None, begun);
        }
        assert!(!health.is_clear(&node, begun + SECOND / 2));
        assert!(health.is_clear("b", begun), "the others are not concerned");
        let trial = begun + SECOND;
        assert!(health.is_clear(&node, trial), "32 failures at once count as one");
        health.begin(&node, trial);
        assert!(!health.is_clear(&node, trial), "one request is enough for a trial");
        health.succeeded(&node);
        assert!(health.is_clear(&node, trial));
    }

    #[test]
    fn failed_trials_are_made_less_and_less_often() {
        let (health, node, mut now) = (Health::default(), Arc::from("a"), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            health.begin(&node, now);
            health.failed(&node, None, now);
            assert!(!health.is_clear(&node, now + seconds * SECOND - SECOND / 2), "{seconds}");
            now += seconds * SECOND;
            assert!(health.is_clear(&node, now), "{seconds}");
        }
    }

    #[test]
    fn a_retry_after_is_waited_for() {
        let (health, node, now) = (Health::default(), Arc::from("a"), Instant::now());
        health.failed(&node, Some(5 * SECOND), now);
        assert!(!health.is_clear(&node, now + 4 * SECOND));
        assert!(health.is_clear(&node, now + 5 * SECOND));
    }
}
