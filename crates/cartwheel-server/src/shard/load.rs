//! The load of a shard, and whether it admits further client requests.
//!
//! A shard lets as many requests be under way as it ends in a few times the time that a request takes without load. Further ones wait outside, and begin
//! in the order in which they came; one that has waited too long is refused. So an overloaded shard spends its time on requests that it ends, and what
//! it admits ends soon, however much is asked of it (Little's law). Were more under way, replicas would seem late to each other, and be asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use cartwheel_core::admission::Admitted;
use cartwheel_core::value::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::turn::LARGE_BYTES;
use super::{INBOX_MAX, TURN_MAX};

/// How many bytes of peers' messages may wait for a shard or be in its turn: of small ones, and of those with large values, so that large
/// ones do not delay small ones. One message of each kind may always wait.
const SMALL_BYTES_MAX: u32 = 16 << 20;
const LARGE_BYTES_MAX: u32 = 64 << 20;
/// Of both kinds together.
pub(super) const BYTES_MAX: usize = (SMALL_BYTES_MAX + LARGE_BYTES_MAX) as usize;
/// How many inputs may wait before client requests are refused: at most half the queue, so that responses which end requests still get in;
/// at least one turn, which costs hardly more than a single input.
const WAITING_MAX: usize = INBOX_MAX / 2;
const WAITING_MIN: usize = TURN_MAX;
/// Between these, it is what the shard works off in this time: a client that would wait longer should try another node.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// How many client requests may be under way in any case, and at most.
const UNDER_WAY_MIN: usize = 64;
const UNDER_WAY_MAX: usize = INBOX_MAX / 2;
/// Between these, it is what the shard ends in this many times the time that a request takes without load, but at least and at most in these times.
const LATENCY_TIMES: u32 = 3;
const LATENCY_MIN: Duration = Duration::from_millis(8);
const LATENCY_MAX: Duration = Duration::from_millis(80);
/// The average of fewer requests says nothing.
const AVERAGED_MIN: usize = 8;
/// How often the limit is set.
const SET_EVERY: Duration = Duration::from_millis(50);
/// A request that is under way for longer than this, and for several times as long as requests usually take, waits for a node that does not
/// answer. It leaves its place to another one.
const STUCK_AFTER: Duration = Duration::from_millis(100);
const STUCK_TIMES: u32 = 4;
/// How long a request waits for its admission: a client that would wait longer should try another node.
const ADMITTED_WITHIN: Duration = Duration::from_millis(500);
/// Turns with fewer inputs are not measured: the sync of a turn would dominate the cost of an input.
const MEASURED_INPUTS_MIN: usize = TURN_MAX / 4;

/// Requests that a shard has carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Served {
    pub(super) requests: usize,
    /// How long they took, taken together.
    pub(super) took: Duration,
}

impl Served {
    pub(super) fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.took += more.took;
    }
}

/// How many requests may be under way in a shard, from how many it carries out, and how fast.
#[derive(Debug)]
pub(super) struct UnderWayLimit {
    /// When the present period began, and the requests that have ended in it.
    begun: Instant,
    served: Served,
    /// How long a request takes without load.
    latency: Duration,
    limit: usize,
    stuck: usize,
}

impl Default for UnderWayLimit {
    fn default() -> Self {
        let (begun, served, stuck) = (Instant::default(), Served::default(), 0);
        Self { begun, served, latency: LATENCY_MAX, limit: UNDER_WAY_MIN, stuck }
    }
}

impl UnderWayLimit {
    /// Records the requests that were carried out since the last call, and returns the limit. `older_than` counts the requests that have been under
    /// way for at least a time.
    pub(super) fn served(&mut self, served: Served, now: Instant, older_than: impl FnOnce(Duration) -> usize) -> usize {
        self.served.add(served);
        let took = now.since(self.begun);
        if took < SET_EVERY {
            return self.limit + self.stuck;
        }
        let Served { requests, took: in_all } = std::mem::take(&mut self.served);
        let average = u32::try_from(requests).ok().and_then(|requests| in_all.checked_div(requests));
        let usual = average.unwrap_or(self.latency);
        // The least average is nearest to what requests take without load. It may change: it grows tenfold in two minutes if nothing brings it
        // down.
        self.latency += self.latency / 1_000;
        if requests >= AVERAGED_MIN {
            self.latency = self.latency.min(usual);
        }
        self.latency = self.latency.clamp(LATENCY_MIN, LATENCY_MAX);
        let window = LATENCY_TIMES * self.latency;
        let in_window = requests as u128 * window.as_micros() / took.as_micros().max(1);
        // A short pause does not bring it down at once.
        let at_least = usize::try_from(in_window).unwrap_or(usize::MAX).max(self.limit / 2);
        self.limit = at_least.clamp(UNDER_WAY_MIN, UNDER_WAY_MAX);
        self.stuck = older_than(STUCK_AFTER.max(STUCK_TIMES * usual));
        self.begun = now;
        self.limit + self.stuck
    }
}

/// The load of a shard, as seen from outside. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Load(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The cost of one input of a large turn, a moving average.
    input_ns: AtomicU64,
    /// The number of client requests under way.
    under_way: AtomicUsize,
    /// How many may be.
    under_way_max: AtomicUsize,
    /// How many of the places in use go when they are free.
    surplus: AtomicUsize,
    /// The free ones. Those that wait for one are in order.
    places: Arc<Semaphore>,
    small_bytes: Arc<Semaphore>,
    large_bytes: Arc<Semaphore>,
    admitted: watch::Sender<Admitted>,
}

impl Default for Load {
    fn default() -> Self {
        Self(Arc::new(Inner {
            input_ns: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            under_way_max: AtomicUsize::new(UNDER_WAY_MIN),
            surplus: AtomicUsize::new(0),
            places: Arc::new(Semaphore::new(UNDER_WAY_MIN)),
            small_bytes: Arc::new(Semaphore::new(SMALL_BYTES_MAX as usize)),
            large_bytes: Arc::new(Semaphore::new(LARGE_BYTES_MAX as usize)),
            admitted: watch::Sender::new(Admitted::default()),
        }))
    }
}

impl Load {
    /// Records a turn of `inputs` inputs that took `took`.
    pub(super) fn turn(&self, inputs: usize, took: Duration) {
        if inputs >= MEASURED_INPUTS_MIN {
            let (average, latest) = (self.0.input_ns.load(Ordering::Relaxed), took.as_nanos() as u64 / inputs as u64);
            let average = if average == 0 { latest } else { (7 * average + latest) / 8 };
            self.0.input_ns.store(average, Ordering::Relaxed);
        }
    }

    /// Counts a client's request as under way until the result is dropped, which also frees its place.
    pub(super) fn begin(&self, place: Option<Place>) -> UnderWay {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay { of: self.clone(), _place: place }
    }

    /// The number of client requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::Relaxed)
    }

    /// How many may be under way.
    pub(super) fn under_way_max(&self) -> usize {
        self.0.under_way_max.load(Ordering::Relaxed)
    }

    /// Waits for a place for another request, for at most `patience`. None if there was none in time.
    pub(super) async fn admit(&self, patience: Duration) -> Option<Place> {
        let places = self.0.places.clone();
        let permit = match places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(patience.min(ADMITTED_WITHIN), places.acquire_owned()).await.ok()?.ok()?,
        };
        Some(Place { of: self.clone(), permit: Some(permit) })
    }

    /// Sets how many requests may be under way from now on. It is called by the shard alone. Places that are taken away while they are in use go
    /// when they are free.
    pub(super) fn set_under_way_max(&self, under_way_max: usize) {
        let before = self.0.under_way_max.swap(under_way_max, Ordering::Relaxed);
        match under_way_max.checked_sub(before) {
            Some(more) => {
                let kept = (0..more).take_while(|_| self.take_surplus()).count();
                self.0.places.add_permits(more - kept);
            }
            None => {
                let fewer = before - under_way_max;
                let gone = self.0.places.forget_permits(fewer);
                self.0.surplus.fetch_add(fewer - gone, Ordering::Relaxed);
            }
        }
    }

    /// Counts one place less that is to go, if there is any.
    fn take_surplus(&self) -> bool {
        let less = |surplus: usize| surplus.checked_sub(1);
        self.0.surplus.load(Ordering::Relaxed) > 0
            && self.0.surplus.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Whether further requests have to wait.
    pub(super) fn is_exhausted(&self) -> bool {
        self.0.places.available_permits() == 0
    }

    /// Whether a client's request is refused while `waiting` inputs wait.
    pub(super) fn refuses(&self, waiting: usize) -> bool {
        // Many are without a place, because their value took long to arrive. Those with one that was there before the limit fell are not too many: they
        // end first, and others wait meanwhile.
        let surplus = self.0.surplus.load(Ordering::Relaxed);
        if self.under_way().saturating_sub(surplus) >= 2 * self.0.under_way_max.load(Ordering::Relaxed) {
            return true;
        }
        let input_ns = self.0.input_ns.load(Ordering::Relaxed).max(1);
        let in_time = usize::try_from(WAIT_MAX.as_nanos() as u64 / input_ns).unwrap_or(usize::MAX);
        waiting >= in_time.clamp(WAITING_MIN, WAITING_MAX)
    }

    /// Waits until there is room for a message of `bytes` bytes, and takes it until the permit is dropped.
    pub(super) async fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let (room, most) = match bytes < LARGE_BYTES {
            true => (&self.0.small_bytes, SMALL_BYTES_MAX),
            false => (&self.0.large_bytes, LARGE_BYTES_MAX),
        };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(most);
        room.clone().acquire_many_owned(bytes).await.ok()
    }

    /// The bytes of messages that wait or are in a turn.
    pub(super) fn bytes(&self) -> usize {
        let free = self.0.small_bytes.available_permits() + self.0.large_bytes.available_permits();
        (SMALL_BYTES_MAX + LARGE_BYTES_MAX) as usize - free
    }

    /// Records how much background work the shard admits.
    pub(super) fn admits(&self, admitted: Admitted) {
        self.0.admitted.send_replace(admitted);
    }

    /// How much background work the shard admits, as last recorded.
    pub(super) fn admitted(&self) -> Admitted {
        *self.0.admitted.borrow()
    }
}

/// A place for one client request among those under way in a shard.
#[derive(Debug)]
pub struct Place {
    of: Load,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Otherwise it would go to the next request that waits, and there would never be fewer.
        if self.of.take_surplus() {
            self.permit.take().into_iter().for_each(OwnedSemaphorePermit::forget);
        }
    }
}

/// A client's request under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    of: Load,
    _place: Option<Place>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.of.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_under_way_is_counted_until_it_ends() {
        let load = Load::default();
        let (_first, second) = (load.begin(None), load.begin(None));
        assert_eq!(load.under_way(), 2);
        drop(second);
        assert_eq!(load.under_way(), 1);
    }

    #[test]
    fn as_many_inputs_may_wait_as_are_worked_off_in_time() {
        let load = Load::default();
        assert!(!load.refuses(WAITING_MAX - 1), "no turn was measured yet");
        assert!(load.refuses(WAITING_MAX));
        (0..100).for_each(|_| load.turn(TURN_MAX, TURN_MAX as u32 * Duration::from_micros(50)));
        assert!(!load.refuses(999));
        assert!(load.refuses(1_000), "50 ms of work");
        load.turn(1, Duration::from_secs(1));
        assert!(!load.refuses(999), "a small turn does not count");
        (0..100).for_each(|_| load.turn(TURN_MAX, TURN_MAX as u32 * Duration::from_millis(10)));
        assert!(!load.refuses(WAITING_MIN - 1) && load.refuses(WAITING_MIN));
    }

    /// The limit after `count` turns of 10 ms that end `requests` each, of this latency.
    fn after(limit: &mut UnderWayLimit, now: &mut Instant, count: u32, requests: usize, ms: u64) -> usize {
        let mut last = 0;
        for _ in 0..count {
            *now = *now + Duration::from_millis(10);
            let served = Served { requests, took: requests as u32 * Duration::from_millis(ms) };
            last = limit.served(served, *now, |_| 0);
        }
        last
    }

    #[test]
    fn as_many_requests_are_under_way_as_end_in_three_times_their_latency() {
        let (mut limit, mut now) = (UnderWayLimit::default(), Instant(1_000_000));
        let mut turns = |count, requests, ms| after(&mut limit, &mut now, count, requests, ms);
        assert_eq!(turns(100, 1, 40), UNDER_WAY_MIN, "a shard with little to do");
        assert_eq!(turns(100, 100, 20), 600, "100 in 10 ms are 600 in 60 ms");
        let loaded = turns(1_000, 100, 200);
        assert!((600..=800).contains(&loaded), "{loaded}: under load requests take longer, which hardly counts");
        assert_eq!(turns(100, 100, 1), 240, "at least 24 ms");
        assert_eq!(turns(100, 10_000, 1), UNDER_WAY_MAX);
        assert_eq!(turns(100, 0, 1), UNDER_WAY_MIN, "the shard stands still");
    }

    #[test]
    fn requests_that_wait_for_a_node_that_does_not_answer_do_not_count() {
        let (mut limit, mut now, mut last) = (UnderWayLimit::default(), Instant(1_000_000), 0);
        for _ in 0..100 {
            now = now + Duration::from_millis(10);
            let served = Served { requests: 2, took: 2 * Duration::from_millis(100) };
            let all = limit.served(served, now, |age| if age == Duration::from_millis(400) { 70 } else { 0 });
            last = all;
        }
        assert_eq!(last, UNDER_WAY_MIN + 70);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_beyond_the_limit_begin_in_order_or_are_refused() {
        let load = Load::default();
        let mut under_way = Vec::new();
        while !load.is_exhausted() {
            let place = load.admit(Duration::ZERO).await;
            assert!(place.is_some());
            under_way.push(load.begin(place));
        }
        assert_eq!(under_way.len(), UNDER_WAY_MIN);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let waits = |number: u32| {
            let (load, order) = (load.clone(), order.clone());
            async move {
                if let Some(place) = load.admit(Duration::from_secs(9)).await {
                    order.lock().unwrap().push(number);
                    std::mem::forget(place);
                }
            }
        };
        let waiting: Vec<_> = (0..5).map(|number| tokio::spawn(waits(number))).collect();
        tokio::task::yield_now().await;
        under_way.truncate(UNDER_WAY_MIN - 2);
        load.set_under_way_max(UNDER_WAY_MIN + 1);
        for waited in waiting {
            waited.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2], "the others were refused after a while");
        assert!(!load.refuses(0));
        under_way.extend((0..UNDER_WAY_MIN + 3).map(|_| load.begin(None)));
        assert!(!load.refuses(0), "some may begin late");
        under_way.push(load.begin(None));
        assert!(load.refuses(0));
    }

    #[tokio::test]
    async fn requests_wait_and_are_not_refused_when_the_limit_falls() {
        let load = Load::default();
        load.set_under_way_max(600);
        let mut under_way = Vec::new();
        while !load.is_exhausted() {
            let place = load.admit(Duration::ZERO).await;
            under_way.push(load.begin(place));
        }
        assert_eq!(under_way.len(), 600);
        load.set_under_way_max(100);
        assert!(!load.refuses(0), "all have a place");
        under_way.extend((0..99).map(|_| load.begin(None)));
        assert!(!load.refuses(0));
        under_way.push(load.begin(None));
        assert!(load.refuses(0), "as many as the limit have none");
    }

    #[tokio::test]
    async fn places_in_use_are_taken_away_when_they_are_free_though_others_wait() {
        let load = Load::default();
        load.set_under_way_max(100);
        let mut places = Vec::new();
        while !load.is_exhausted() {
            places.extend(load.admit(Duration::ZERO).await);
        }
        assert_eq!(places.len(), 100);
        let waits = load.clone();
        let mut waiting = Box::pin(async move { waits.admit(Duration::from_secs(60)).await });
        let mut is_admitted = async || {
            tokio::select! {
                biased;
                place = &mut waiting => place,
                () = std::future::ready(()) => None,
            }
        };
        assert!(is_admitted().await.is_none());
        load.set_under_way_max(60);
        load.set_under_way_max(70);
        places.truncate(70);
        assert!(is_admitted().await.is_none(), "70 are in use");
        places.truncate(69);
        let place = is_admitted().await;
        assert!(place.is_some() && load.is_exhausted());
        drop((place, places));
        assert_eq!(load.0.places.available_permits(), 70);
    }

    #[tokio::test]
    async fn waiting_bytes_are_bounded() {
        let load = Load::default();
        let first = load.room_for(usize::MAX).await;
        assert_eq!(load.bytes(), LARGE_BYTES_MAX as usize, "a single message may always wait");
        assert!(load.room_for(1).await.is_some(), "small messages do not wait for large ones");
        let mut second = Box::pin(load.room_for(LARGE_BYTES));
        tokio::select! {
            biased;
            _ = &mut second => panic!("the second message should wait"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(load.bytes(), 0);
    }
}
