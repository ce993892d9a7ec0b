//! Which nodes a request goes to: the homes of its key, as far as the client knows the ring.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::health::Health;
use crate::hedge::Hedging;
use crate::http::{self, Failure, Http, Response};
use crate::retry;
use crate::{Cause, Error, HomeTable, Ring};

/// How long the first request waits for the ring. After that it goes to the endpoints that the client was made with.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// How long a node may take to send its ring.
const RING_WITHIN: Duration = Duration::from_secs(2);
/// The most nodes that are asked for the ring in one refresh.
const SOURCES_MAX: usize = 4;
/// The time between refreshes of a client in use.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// The same after a refresh that found a change: more may follow, since partitions change their homes one by one.
const REFRESH_AFTER_CHANGE: Duration = Duration::from_secs(2);
/// The least time between two refreshes, and the time until the first is repeated that failed. It doubles up to [`REFRESH_EVERY`].
const REFRESH_GAP: Duration = Duration::from_secs(1);
/// The members beside a key's homes to which a request goes when all homes have failed. Any node can serve any request.
const OTHERS_MAX: usize = 3;

/// What all clones of a client know about the cluster's nodes.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) health: Health,
    pub(crate) hedging: Hedging,
    learned: watch::Sender<Learned>,
    schedule: Mutex<Schedule>,
}

/// The nodes for one request.
#[derive(Debug)]
pub(crate) struct Targets {
    /// In the order in which they are tried, except that the first one is `first`.
    pub(crate) endpoints: Vec<Arc<str>>,
    pub(crate) first: usize,
    /// Whether they were chosen by the ring.
    pub(crate) is_routed: bool,
    /// Another healthy home, for a hedged read.
    pub(crate) second_home: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Learned {
    /// Whether the first attempt to learn the ring has ended. Requests do not wait after that.
    was_tried: bool,
    ring: Option<Arc<KnownRing>>,
}

/// The ring, as far as requests need it.
#[derive(PartialEq, Eq, Debug)]
struct KnownRing {
    version: String,
    table: HomeTable,
    /// The endpoints of the members; `None` for an address that cannot be used.
    endpoints: Vec<Option<Arc<str>>>,
}

/// When the ring is read again.
#[derive(Debug, Default)]
struct Schedule {
    is_running: bool,
    failures: u32,
    /// When the next refresh is due, and when it may begin if a node has failed; `None` before the first.
    next: Option<(Instant, Instant)>,
}

/// The result of a refresh.
#[derive(Clone, Copy, Debug)]
enum Refreshed {
    Failed,
    Same,
    Changed,
}

/// A refresh under way. If its task is dropped with its runtime, another one may begin.
struct Refresh(Arc<Router>);

impl Router {
    pub(crate) fn new() -> Self {
        let (learned, _) = watch::channel(Learned::default());
        Self { health: Health::default(), hedging: Hedging::default(), learned, schedule: Mutex::default() }
    }

    /// The nodes for a request on a key, or `None` while the ring is not known. Only the first request waits for it, up to `within`.
    pub(crate) async fn targets(
        self: &Arc<Self>,
        (bucket, key): (&[u8], &[u8]),
        http: &Http,
        given: &[Arc<str>],
        within: Duration,
    ) -> Option<Targets> {
        self.refresh(http, given, false);
        if !self.learned.borrow().was_tried {
            let mut learned = self.learned.subscribe();
            let first = learned.wait_for(|learned| learned.was_tried);
            let is_late = tokio::time::timeout(within.min(FIRST_WITHIN), first).await.is_err();
            if is_late {
                self.learned.send_modify(|learned| learned.was_tried = true);
            }
        }
        let ring = self.learned.borrow().ring.clone()?;
        self.order(&ring, (bucket, key), given, Instant::now())
    }

    /// The key's homes in their order, then other nodes; those that are in trouble come last. `None` if the ring names no home.
    fn order(
        &self,
        ring: &KnownRing,
        (bucket, key): (&[u8], &[u8]),
        given: &[Arc<str>],
        now: Instant,
    ) -> Option<Targets> {
        let homes = ring.table.homes_of(bucket, key);
        let members = ring.endpoints.len();
        let around = homes.first()?;
        let others = (1..members).map(|step| (around + step) % members).filter(|member| !homes.contains(member));
        let endpoint = |&member: &usize| ring.endpoints[member].clone();
        let mut endpoints: Vec<Arc<str>> = homes.iter().filter_map(endpoint).collect();
        let homes = endpoints.clone();
        endpoints.extend(others.take(OTHERS_MAX).filter_map(|member| endpoint(&member)));
        let unknown: Vec<_> = given.iter().filter(|given| !endpoints.contains(given)).cloned().collect();
        endpoints.extend(unknown);
        // The sort is stable, so each group keeps its order.
        endpoints.sort_by_cached_key(|endpoint| !self.health.is_clear(endpoint, now));
        let is_home = |at: usize| homes.contains(&endpoints[at]) && self.health.is_clear(&endpoints[at], now);
        let second_home = (endpoints.len() > 1 && is_home(0) && is_home(1)).then_some(1);
        self.health.begin(endpoints.first()?, now);
        Some(Targets { endpoints, first: 0, is_routed: true, second_home })
    }

    /// Records how an attempt at a node ended. Returns whether the ring may have changed: the node does not answer.
    pub(crate) fn ended(&self, endpoint: &Arc<str>, result: &Result<Response, Failure>) -> bool {
        let (retry_after, is_gone) = match result {
            // It answers, but is about to be stopped.
            Ok(response) if response.header("cartwheel-draining").is_some() => (None, false),
            Ok(_) | Err(Failure::Final(Error::Refused { .. })) => {
                self.health.succeeded(endpoint);
                return false;
            }
            Err(Failure::Retry { cause, retry_after, .. }) => {
                (*retry_after, matches!(cause, Cause::Unreachable | Cause::TimedOut))
            }
            Err(Failure::Final(_)) => (None, true),
        };
        self.health.failed(endpoint, retry_after, Instant::now());
        is_gone
    }

    /// Reads the ring in the background if that is due. If `is_urgent`, because a node has failed, it is due at once.
    pub(crate) fn refresh(self: &Arc<Self>, http: &Http, given: &[Arc<str>], is_urgent: bool) {
        if !self.schedule().begin(Instant::now(), is_urgent) {
            return;
        }
        let (refresh, http, sources) = (Refresh(self.clone()), http.clone(), self.sources(given));
        tokio::spawn(async move {
            let mut ring = None;
            for endpoint in sources {
                ring = fetch(&http, &endpoint).await;
                match &ring {
                    Some(_) => break,
                    None => refresh.0.health.failed(&endpoint, None, Instant::now()),
                }
            }
            refresh.0.learn(ring);
        });
    }

    #[cfg(test)]
    pub(crate) fn knows_ring(&self) -> bool {
        self.learned.borrow().ring.is_some()
    }

    /// The nodes to ask for the ring: members at random, then the endpoints given.
    fn sources(&self, given: &[Arc<str>]) -> Vec<Arc<str>> {
        let ring = self.learned.borrow().ring.clone();
        let members: Vec<Arc<str>> = ring.iter().flat_map(|ring| ring.endpoints.iter().flatten().cloned()).collect();
        let (count, now) = (members.len(), Instant::now());
        let first = (retry::random() * count as f64) as usize;
        let members = members.into_iter().cycle().skip(first).take(count);
        let mut sources: Vec<_> =
            members.filter(|member| self.health.is_clear(member, now)).take(SOURCES_MAX / 2).collect();
        let unknown: Vec<_> = given.iter().filter(|given| !sources.contains(given)).cloned().collect();
        sources.extend(unknown);
        sources.truncate(SOURCES_MAX);
        sources
    }

    fn learn(&self, ring: Option<KnownRing>) {
        let mut refreshed = Refreshed::Failed;
        self.learned.send_modify(|learned| {
            learned.was_tried = true;
            if let Some(ring) = ring {
                let is_same = learned.ring.as_deref() == Some(&ring);
                refreshed = if is_same { Refreshed::Same } else { Refreshed::Changed };
                learned.ring = Some(ring.into());
            }
        });
        self.schedule().ended(Instant::now(), refreshed, retry::random());
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        self.0.schedule().is_running = false;
    }
}

impl Schedule {
    /// Whether a refresh is due, which then begins.
    fn begin(&mut self, now: Instant, is_urgent: bool) -> bool {
        let is_due = self.next.is_none_or(|(due, earliest)| now >= if is_urgent { earliest } else { due });
        let begins = is_due && !self.is_running;
        self.is_running |= begins;
        begins
    }

    /// Plans the next refresh. `random`, from 0 to 1, keeps the refreshes of many clients apart.
    fn ended(&mut self, now: Instant, refreshed: Refreshed, random: f64) {
        let after = match refreshed {
            Refreshed::Failed => REFRESH_GAP.saturating_mul(1 << self.failures.min(8)).min(REFRESH_EVERY),
            Refreshed::Same => REFRESH_EVERY,
            Refreshed::Changed => REFRESH_AFTER_CHANGE,
        };
        self.failures = if let Refreshed::Failed = refreshed { self.failures + 1 } else { 0 };
        self.next = Some((now + after.mul_f64(0.75 + random / 2.0), now + REFRESH_GAP));
    }
}

async fn fetch(http: &Http, endpoint: &str) -> Option<KnownRing> {
    let request = Request::get(format!("{endpoint}{}", http::RING_PATH)).body(Full::default()).ok()?;
    let (_, response) = http.attempt(request, RING_WITHIN).await;
    KnownRing::new(&serde_json::from_slice(&response.ok()?.body).ok()?, http)
}

impl KnownRing {
    fn new(ring: &Ring, http: &Http) -> Option<Self> {
        let endpoint = |member: &crate::Member| http.endpoint(&member.http).map(Arc::from);
        let endpoints = ring.members.iter().map(endpoint).collect();
        Some(Self { version: ring.version.clone(), table: HomeTable::new(ring).ok()?, endpoints })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&[u8], &[u8]) = (b"b", b"k");

    /// A ring of one partition whose homes are these of the members `a`, `b`, ...
    fn ring(homes: &[usize], members: usize) -> KnownRing {
        let members: Vec<String> = ('a'..='z').take(members).map(|name| format!("{name}:1")).collect();
        KnownRing::new(&crate::tests::ring(vec![homes.to_vec()], &members), &Http::new(&crate::Tls::default(), false))
            .unwrap()
    }

    /// The order of targets, one letter each, and whether a read may be hedged.
    fn order(router: &Router, ring: &KnownRing, given: &[&str]) -> (String, bool) {
        let given: Vec<Arc<str>> = given.iter().map(|&given| given.into()).collect();
        let targets = router.order(ring, KEY, &given, Instant::now()).unwrap();
        let letter = |endpoint: &Arc<str>| endpoint.trim_start_matches("http://").chars().next().unwrap();
        (targets.endpoints.iter().map(letter).collect(), targets.second_home.is_some())
    }

    #[test]
    fn homes_come_first_in_their_order() {
        let router = Router::new();
        assert_eq!(order(&router, &ring(&[2, 0, 1], 7), &["http://x:1", "http://c:1"]), ("cabdefx".to_owned(), true));
        assert_eq!(order(&router, &ring(&[1], 2), &["http://x:1"]), ("bax".to_owned(), false), "no second home");
        assert!(router.order(&ring(&[], 2), KEY, &[], Instant::now()).is_none());
    }

    #[test]
    fn nodes_in_trouble_come_last() {
        let (router, ring) = (Router::new(), ring(&[2, 0, 1], 4));
        let fail = |endpoint: &str| router.health.failed(&endpoint.into(), None, Instant::now());
        fail("http://c:1");
        assert_eq!(order(&router, &ring, &[]), ("abdc".to_owned(), true));
        fail("http://a:1");
        assert_eq!(order(&router, &ring, &[]), ("bdca".to_owned(), false), "only homes are asked twice");
        fail("http://b:1");
        fail("http://d:1");
        assert_eq!(order(&router, &ring, &[]).0, "cabd", "if all have failed, the homes come first again");
        router.health.succeeded("http://c:1");
        assert_eq!(order(&router, &ring, &[]).0, "cabd");
    }

    #[test]
    fn a_node_that_drains_comes_last_until_a_trial_shows_that_it_no_longer_does() {
        let (router, ring) = (Router::new(), ring(&[2, 0, 1], 4));
        let response = |draining: bool| {
            let mut headers = hyper::HeaderMap::new();
            if draining {
                headers.insert("cartwheel-draining", hyper::header::HeaderValue::from_static("true"));
            }
            Ok(Response { status: hyper::StatusCode::OK, headers, body: bytes::Bytes::new() })
        };
        assert!(!router.ended(&"http://c:1".into(), &response(true)), "the ring is as it was");
        assert_eq!(order(&router, &ring, &[]).0, "abdc");
        router.ended(&"http://c:1".into(), &response(false));
        assert_eq!(order(&router, &ring, &[]).0, "cabd");
    }

    #[test]
    fn the_ring_is_read_from_time_to_time_and_soon_after_a_change_or_a_failure() {
        const SECOND: Duration = Duration::from_secs(1);
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        assert!(schedule.begin(now, false));
        assert!(!schedule.begin(now, true), "one refresh at a time");
        schedule.ended(now, Refreshed::Changed, 0.5);
        schedule.is_running = false;
        assert!(!schedule.begin(now + SECOND, false));
        now += 2 * SECOND;
        assert!(schedule.begin(now, false), "more changes may follow");
        schedule.ended(now, Refreshed::Same, 0.5);
        schedule.is_running = false;
        assert!(!schedule.begin(now + SECOND / 2, true), "not at each of many failures");
        assert!(!schedule.begin(now + 29 * SECOND, false));
        assert!(schedule.begin(now + SECOND, true));
        schedule.is_running = false;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            schedule.ended(now, Refreshed::Failed, 0.5);
            assert!(!schedule.begin(now + seconds * SECOND - SECOND / 2, false), "{seconds}");
            now += seconds * SECOND;
            assert!(schedule.begin(now, false), "{seconds}");
            schedule.is_running = false;
        }
    }
}
