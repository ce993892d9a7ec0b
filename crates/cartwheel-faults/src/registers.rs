//! Registers under faults: keys whose last write wins, and the check of what their clients have read.
//!
//! Registers that are written strongly must be linearizable. For the others, the last acknowledged put must be there at the end. Another put may be
//! there instead if it overlaps the last one, or if its clock may have been ahead by as much as peers accept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cartwheel_client::{BucketChange, Client, Consistency, Options, Outcome, Siblings, Value};
use cartwheel_sim::linear::{self, Interval, Linearity, Model};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::FaultsError;
use crate::cluster::{Cluster, ZONES};
use crate::ledger::{Ledger, Requester};

/// The bucket of registers with eventual writes.
pub const LAST: &str = "last";
/// The bucket of registers with strong writes.
pub const STRONG: &str = "strong";
/// A node whose clock is further off refuses writes.
const CLOCK_BOUND: Duration = Duration::from_secs(10);
/// How long all clients use one key before they go to the next.
const TURN: Duration = Duration::from_secs(3);
/// The number of keys in rotation. A key with eventual writes is used again only after more time than the clocks' bound.
const TURNS: u128 = 8;
const BETWEEN: Duration = Duration::from_millis(60);
/// How long one node may take for a request.
const WITHIN: Duration = Duration::from_secs(3);
/// The most attempts at one write that the check tells apart.
const TRIES_MAX: u32 = 3;
const CONFIGURATIONS_MAX: usize = 200_000;

type Name = (&'static str, String);

/// An operation on a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterOp {
    /// A write of this number.
    Put(u64),
    /// A read, and the number that it found.
    Get(Option<u64>),
}

/// One request with all its attempts. Times count from the start of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// When it was sent.
    pub begun: Duration,
    /// When the response came, or its client stopped trying.
    pub ended: Duration,
    /// Whether its client got a successful response.
    pub is_done: bool,
    /// The number of nodes that may have carried it out, one after another.
    pub tries: u32,
    /// The operation.
    pub operation: RegisterOp,
}

/// All registers and their histories.
#[derive(Debug)]
pub struct Registers {
    started: Instant,
    put: AtomicU64,
    histories: Mutex<BTreeMap<Name, Vec<Access>>>,
}

/// The result of the check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegisterCheck {
    /// The number of registers.
    pub registers: usize,
    /// Strong registers with too many concurrent requests to decide.
    pub undecided: usize,
    /// The violations.
    pub wrong: Vec<String>,
}

impl Default for Registers {
    fn default() -> Self {
        Self { started: Instant::now(), put: AtomicU64::default(), histories: Mutex::default() }
    }
}

impl Registers {
    /// Sets up the buckets.
    ///
    /// # Errors
    /// If a change is refused.
    pub async fn make_buckets(cluster: &Cluster) -> Result<(), FaultsError> {
        for bucket in [LAST, STRONG] {
            let change = BucketChange { conflict: Some("lww".to_owned()), ..BucketChange::default() };
            cluster.set_bucket(0, bucket, change).await??;
        }
        Ok(())
    }

    fn note(&self, name: Name, access: Access) {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().push(access);
    }

    /// Reads all registers once more, and checks their histories. No client may write meanwhile.
    ///
    /// # Errors
    /// If no client can be made.
    pub async fn judge(self: &Arc<Self>, cluster: &Cluster) -> Result<RegisterCheck, FaultsError> {
        let endpoints = cluster.endpoints_for(2, 0);
        let registers = self.clone();
        let judging = move || async move {
            let client = Client::new(endpoints)?.without_routing();
            let histories = registers.histories.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut checked = RegisterCheck { registers: histories.len(), ..RegisterCheck::default() };
            for ((bucket, key), mut history) in histories {
                let begun = registers.started.elapsed();
                let read = client.get_with(bucket, &key, &options(bucket)).await;
                let ended = registers.started.elapsed();
                let Ok(found) = read.as_ref().map(number) else {
                    checked.wrong.push(format!("{bucket}/{key} cannot be read: {read:?}"));
                    continue;
                };
                let access = Access { begun, ended, is_done: true, tries: 1, operation: RegisterOp::Get(found) };
                if bucket == LAST {
                    checked.wrong.extend(lost_put(&history, found).map(|why| format!("{bucket}/{key}: {why}")));
                    continue;
                }
                history.push(access);
                match check_order(&history) {
                    Linearity::Linear => {}
                    Linearity::GaveUp => checked.undecided += 1,
                    Linearity::NotLinear => {
                        checked.wrong.push(format!("{bucket}/{key} is not linearizable: {history:?}"))
                    }
                }
                registers.note((bucket, key), access);
            }
            Ok::<_, FaultsError>(checked)
        };
        cluster.network().inside(cluster.clients_of(2), judging).await?
    }
}

/// An acknowledged put that is lost: what is there now was written by a put that had ended before the lost one began.
fn lost_put(history: &[Access], found: Option<u64>) -> Option<String> {
    let writer = |number| history.iter().find(|access| access.operation == RegisterOp::Put(number));
    let ended = match found {
        None => None,
        Some(number) => match writer(number) {
            None => return Some(format!("{number} was read, but never put")),
            // A put without a response may be carried out later, within the time that nodes may take.
            Some(access) => Some(access.ended + CLOCK_BOUND + if access.is_done { Duration::ZERO } else { WITHIN }),
        },
    };
    let lost = history.iter().find(|access| {
        matches!(access.operation, RegisterOp::Put(_))
            && access.is_done
            && ended.is_none_or(|ended| access.begun > ended)
    })?;
    let found = found.map_or_else(|| "no value".to_owned(), |number| format!("{:?}", writer(number)));
    Some(format!("{lost:?} is lost; found {found}"))
}

struct Register;

impl Model for Register {
    type State = Option<u64>;
    type Operation = RegisterOp;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn apply(&self, state: &Option<u64>, operation: &RegisterOp) -> Option<Option<u64>> {
        match operation {
            RegisterOp::Put(number) => Some(Some(*number)),
            RegisterOp::Get(found) => (found == state).then_some(*state),
        }
    }
}

/// Whether the requests could have been carried out one at a time.
fn check_order(history: &[Access]) -> Linearity {
    let was_seen = |operation: RegisterOp| {
        let RegisterOp::Put(number) = operation else { return true };
        history.iter().any(|access| access.operation == RegisterOp::Get(Some(number)))
    };
    let mut moments: Vec<(Duration, usize, bool)> = history
        .iter()
        .enumerate()
        .flat_map(|(at, access)| [(access.begun, at, false), (access.ended, at, true)])
        .collect();
    // At the same moment, begins sort before ends: then the requests overlap, and may have happened in either order.
    moments.sort_by_key(|&(moment, at, is_end)| (moment, is_end, at));
    let position = |at: usize, is_end: bool| {
        moments.iter().position(|&(_, of, end)| of == at && end == is_end).unwrap_or_default() as u64
    };
    let mut intervals = Vec::new();
    for (at, access) in history.iter().enumerate() {
        let (invoked, operation) = (position(at, false), access.operation);
        if access.is_done {
            intervals.push(Interval { invoked, answered: Some(position(at, true)), operation });
        }
        // An attempt whose value was never read explains no read.
        if matches!(operation, RegisterOp::Put(_)) && was_seen(operation) {
            let others = access.tries.min(TRIES_MAX).saturating_sub(u32::from(access.is_done));
            intervals.extend((0..others).map(|_| Interval { invoked, answered: None, operation }));
        }
    }
    intervals.sort_by_key(|interval| interval.invoked);
    linear::check(&Register, &intervals, CONFIGURATIONS_MAX)
}

fn options(bucket: &str) -> Options {
    let consistency = if bucket == STRONG { Consistency::Strong } else { Consistency::Eventual };
    Options { consistency, timeout: Some(WITHIN), ..Options::default() }
}

fn number(read: &Siblings) -> Option<u64> {
    std::str::from_utf8(&read.values.first()?.bytes).ok()?.parse().ok()
}

/// The clients of registers: two in each zone. Dropping it stops them.
#[derive(Debug)]
pub struct RegisterTraffic {
    stop: watch::Sender<bool>,
    zones: JoinSet<Result<(), FaultsError>>,
}

impl RegisterTraffic {
    /// Starts the clients.
    pub fn start(cluster: &Cluster, ledger: &Arc<Ledger>, registers: &Arc<Registers>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut zones = JoinSet::new();
        for zone in 0..ZONES {
            for bucket in [LAST, STRONG] {
                let endpoints = cluster.endpoints_for(zone, 1);
                let (ledger, registers, stopped) = (ledger.clone(), registers.clone(), stopped.clone());
                let work = move || async move {
                    let user = RegisterClient::new(&endpoints, zone, bucket, &ledger, &registers)?;
                    while !*stopped.borrow() {
                        user.make_request().await;
                        tokio::time::sleep(BETWEEN).await;
                    }
                    Ok(())
                };
                let inside = cluster.network().inside(cluster.clients_of(zone), work);
                zones.spawn(async move { inside.await? });
            }
        }
        Self { stop, zones }
    }

    /// Lets the clients finish their requests, and waits for them.
    ///
    /// # Errors
    /// If a client failed.
    pub async fn stop(mut self) -> Result<(), FaultsError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.zones.join_next().await {
            ended.map_err(|error| FaultsError::system("use registers")(std::io::Error::other(error)))??;
        }
        Ok(())
    }
}

struct RegisterClient {
    bucket: &'static str,
    zone: usize,
    client: Client,
    ledger: Arc<Ledger>,
    registers: Arc<Registers>,
    tries: Arc<AtomicU32>,
}

impl RegisterClient {
    fn new(
        endpoints: &[String],
        zone: usize,
        bucket: &'static str,
        ledger: &Arc<Ledger>,
        registers: &Arc<Registers>,
    ) -> Result<Self, FaultsError> {
        let tries = Arc::new(AtomicU32::new(0));
        let (seen, watching, requester) =
            (tries.clone(), ledger.clone(), Requester { zone, is_strong: bucket == STRONG });
        let client = Client::new(endpoints)?.without_routing().on_attempt(move |attempt| {
            if attempt.outcome != Outcome::NoConnection {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            watching.record_attempt(requester, attempt);
        });
        Ok(Self { bucket, zone, client, ledger: ledger.clone(), registers: registers.clone(), tries })
    }

    async fn make_request(&self) {
        let begun = self.registers.started.elapsed();
        let turn = begun.as_millis() / TURN.as_millis();
        let key = if self.bucket == LAST { turn % TURNS } else { turn }.to_string();
        self.tries.store(0, Ordering::Relaxed);
        let number_put = self.registers.put.fetch_add(1, Ordering::Relaxed);
        let begun_at = Instant::now();
        // Eventual clients do not read: a stale result is not a violation.
        let (operation, is_done) = if self.bucket == STRONG && number_put.is_multiple_of(2) {
            match self.client.get_with(self.bucket, &key, &options(self.bucket)).await {
                Ok(read) => (RegisterOp::Get(number(&read)), true),
                Err(_) => return,
            }
        } else {
            let value = Value::new(number_put.to_string(), "text/plain");
            let put = self.client.put_with(self.bucket, &key, value, None, &options(self.bucket)).await;
            if put.is_err() && self.bucket == LAST {
                self.ledger.abandon(Requester { zone: self.zone, is_strong: false }, begun_at);
            }
            (RegisterOp::Put(number_put), put.is_ok())
        };
        let (ended, tries) = (self.registers.started.elapsed(), self.tries.load(Ordering::Relaxed));
        self.registers.note((self.bucket, key), Access { begun, ended, is_done, tries, operation });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(begun: u64, ended: u64, is_done: bool, tries: u32, operation: RegisterOp) -> Access {
        Access { begun: Duration::from_secs(begun), ended: Duration::from_secs(ended), is_done, tries, operation }
    }

    #[test]
    fn an_earlier_put_may_win_only_within_the_clock_bound() {
        let history = |gap: u64| {
            [access(0, 1, true, 1, RegisterOp::Put(1)), access(1 + gap, 2 + gap, true, 1, RegisterOp::Put(2))]
        };
        assert_eq!(lost_put(&history(11), Some(2)), None);
        assert_eq!(lost_put(&history(9), Some(1)), None, "its clock may have been ahead");
        assert!(lost_put(&history(11), Some(1)).is_some());
        assert!(lost_put(&history(11), Some(7)).is_some(), "it was never put");
        assert!(lost_put(&history(0), None).is_some(), "nothing is there");
        let mut abandoned = history(11);
        abandoned[0].is_done = false;
        assert_eq!(lost_put(&abandoned, Some(1)), None, "it may have been carried out late");
        abandoned[1].is_done = false;
        assert_eq!(lost_put(&abandoned, None), None, "nothing was acknowledged");
    }

    #[test]
    fn an_old_value_after_a_new_one_is_not_linearizable() {
        let put = |number, done| access(0, 1, done, 1, RegisterOp::Put(number));
        let got = |at, found| access(at, at + 1, true, 1, RegisterOp::Get(found));
        assert_eq!(check_order(&[put(1, true), got(2, Some(1))]), Linearity::Linear);
        assert_eq!(check_order(&[put(1, true), got(2, None)]), Linearity::NotLinear);
        assert_eq!(
            check_order(&[put(1, false), got(2, None), got(4, Some(1))]),
            Linearity::Linear,
            "the unanswered put was carried out late"
        );
        assert_eq!(check_order(&[put(1, false), got(2, Some(1)), got(4, None)]), Linearity::NotLinear);
        let mut twice = vec![put(1, true), access(2, 3, true, 1, RegisterOp::Put(2)), got(4, Some(2)), got(6, Some(1))];
        assert_eq!(check_order(&twice), Linearity::NotLinear);
        twice[0].tries = 2;
        assert_eq!(check_order(&twice), Linearity::Linear, "a second attempt may take effect later");
    }
}
