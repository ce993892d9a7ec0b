use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Share;

/// How many requests a second are traced because their clients say so; in a burst as many at once.
pub(super) const FROM_CLIENTS_MAX: u32 = 100;

/// Which requests are traced.
#[derive(Debug)]
pub(super) struct Sampler {
    /// The share of the requests that come without a trace.
    share: Share,
    from_clients: Mutex<Allowance>,
}

/// What is left of the requests that may be traced because their clients say so.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Sampler {
    pub(super) fn new(share: Share) -> Self {
        let allowance = Allowance { left: FROM_CLIENTS_MAX.into(), at: Instant::now() };
        Self { share, from_clients: Mutex::new(allowance) }
    }

    /// Whether a request that comes without a trace begins one.
    pub(super) fn draws(&self) -> bool {
        fastrand::u64(..1 << 32) < self.share.of(1 << 32)
    }

    /// Whether a request that its client traces is traced here. Otherwise clients could make every request expensive.
    pub(super) fn takes_from_client(&self) -> bool {
        self.from_clients.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let rate = f64::from(FROM_CLIENTS_MAX);
        let grown = now.saturating_duration_since(self.at).min(Duration::from_secs(1)).as_secs_f64() * rate;
        (self.left, self.at) = ((self.left + grown).min(rate), now);
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_begin_traces_at_a_bounded_rate() {
        let begun = Instant::now();
        let mut allowance = Allowance { left: FROM_CLIENTS_MAX.into(), at: begun };
        let taken = |allowance: &mut Allowance, at| (0..1_000).filter(|_| allowance.take(begun + at)).count();
        assert_eq!(taken(&mut allowance, Duration::ZERO), 100);
        assert_eq!(taken(&mut allowance, Duration::from_millis(105)), 10);
        assert_eq!(taken(&mut allowance, Duration::from_secs(3_600)), 100, "it does not grow without bound");
    }

    #[test]
    fn a_share_of_the_other_requests_is_drawn() {
        let drawn = |share: &str| (0..10_000).filter(|_| Sampler::new(share.parse().unwrap()).draws()).count();
        assert_eq!((drawn("0"), drawn("1")), (0, 10_000));
        assert!((500..2_000).contains(&drawn("0.1")));
    }
}
