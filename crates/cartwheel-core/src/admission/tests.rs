use super::*;

const TARGET: Duration = Duration::from_millis(50);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A controller together with its clients and background work.
struct Node {
    admission: Admission,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        Self { admission: Admission::new(TARGET), now: Instant(1) }
    }

    /// Runs some seconds of 100 requests each, of which `slow` in a hundred take `slow_for`, and repairs as much as is admitted. Returns the
    /// units repaired in the last second.
    fn run(&mut self, seconds: usize, slow: usize, slow_for: Duration) -> u64 {
        let mut repaired = 0;
        for _ in 0..seconds {
            repaired = 0;
            for number in 0..100 {
                self.admission.served(if number < slow { slow_for } else { ms(5) });
                repaired += self.repair();
                self.now = self.now + ms(10);
            }
        }
        repaired
    }

    fn repair(&mut self) -> u64 {
        (0..).take_while(|_| self.admission.may_begin(WorkClass::Repair, self.now)).count() as u64
    }
}

#[test]
fn background_work_grows_while_clients_are_served_in_time() {
    let mut node = Node::new();
    node.run(10, 0, ms(0));
    let (early, late) = (node.run(1, 0, ms(0)), node.run(60, 0, ms(0)));
    assert!(late > 10 * early, "{early} {late}");
    assert!(late <= RATE_MAX);
}

#[test]
fn a_bad_second_halves_the_rate_and_more_of_them_reach_the_floor() {
    let mut node = Node::new();
    node.run(40, 0, ms(0));
    let before = node.admission.admitted().rate;
    node.run(1, 5, ms(80));
    node.run(1, 0, ms(0));
    let after = node.admission.admitted().rate;
    assert!((before / 4..=before * 3 / 4).contains(&after), "{before} {after}");
    let floor = node.run(20, 5, ms(80));
    assert!((RATE_MIN - 1..=RATE_MIN + 1).contains(&floor), "{floor}");
}

#[test]
fn the_rate_grows_again_only_after_a_good_minute() {
    let mut node = Node::new();
    node.run(40, 0, ms(0));
    node.run(3, 50, ms(80));
    node.run(1, 0, ms(0));
    let rate = node.admission.admitted().rate;
    node.run(50, 0, ms(0));
    assert_eq!(node.admission.admitted().rate, rate);
    node.run(15, 0, ms(0));
    assert!(node.admission.admitted().rate > rate);
}

#[test]
fn a_limit_follows_from_quiet_latency_below_the_target() {
    let mut node = Node::new();
    // The first seconds are not learnt from; a few more are enough.
    for _ in 0..100 * (SETTLING_SECONDS + 3) {
        // No background work.
        node.admission.served(ms(5));
        node.now = node.now + ms(10);
        node.admission.advance(node.now);
    }
    node.run(20, 0, ms(0));
    let rate = node.admission.admitted().rate;
    assert!(node.admission.admitted().limit < ms(8));
    node.run(5, 5, ms(20));
    assert!(node.admission.admitted().rate < rate / 4, "20 ms are far more than 5");
}

#[test]
fn the_first_seconds_are_not_learnt_from_and_admit_little() {
    let mut node = Node::new();
    // Slow requests in these seconds do not raise the quiet latency.
    let repaired = node.run(SETTLING_SECONDS as usize, 50, ms(40));
    assert!(repaired <= RATE_MIN + 1, "{repaired}");
    node.run(4, 0, ms(0));
    let Admitted { limit, rate, .. } = node.admission.admitted();
    assert!(limit < ms(8) && rate >= RATE_MIN, "{limit:?} {rate}");
}

#[test]
fn without_clients_the_rate_reaches_its_maximum() {
    let mut node = Node::new();
    node.run(5, 50, ms(80));
    assert_eq!(node.admission.admitted().rate, RATE_MIN);
    let mut repaired = 0;
    for _ in 0..1_000 {
        repaired += node.repair();
        node.now = node.now + ms(10);
    }
    assert_eq!(node.admission.admitted().rate, RATE_MAX);
    assert!(repaired > 10_000);
}

#[test]
fn an_unused_rate_grows_to_a_bound() {
    let mut node = Node::new();
    node.now = node.now + Duration::from_secs(1_000);
    assert!(node.repair() <= 1 + RATE_UNUSED_MAX / 20);
    assert_eq!(node.admission.admitted().rate, RATE_UNUSED_MAX);
}

#[test]
fn a_second_with_refused_requests_halves_the_rate() {
    let mut node = Node::new();
    node.run(40, 0, ms(0));
    let before = node.admission.admitted().rate;
    node.admission.overloaded();
    node.run(1, 0, ms(0));
    node.run(1, 0, ms(0));
    assert!(node.admission.admitted().rate <= before * 3 / 4);
}

#[test]
fn no_class_starves_another_and_waiting_work_is_woken() {
    let mut node = Node::new();
    assert_eq!(node.admission.wake_at(), None);
    node.repair();
    assert!(!node.admission.may_begin(WorkClass::Repair, node.now));
    let wake_at = node.admission.wake_at().unwrap();
    assert!(wake_at > node.now);
    assert!(node.admission.may_begin(WorkClass::Scan, node.now), "repairs take nothing from scans");
    node.admission.has_read(WorkClass::Scan, 256, node.now);
    assert!(!node.admission.may_begin(WorkClass::Scan, node.now), "the records it read cost more than the allowance");
    assert!(node.admission.may_begin(WorkClass::Repair, wake_at));
    let later = wake_at + Duration::from_secs(1);
    node.admission.advance(later);
    assert_eq!(node.admission.wake_at(), None, "a class that does not ask again needs no wake-up");
    assert!(node.admission.may_begin(WorkClass::Scan, node.admission.next_at(WorkClass::Scan)));
}
