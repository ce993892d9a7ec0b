//! Registers under faults: keys of which only the last write counts, and what their clients were told of them.
//!
//! Those that are written strongly must be linearizable. Of the others the last acknowledged put must be there in the end, unless one that
//! it overlaps, or whose clock may have been ahead of it by as much as peers accept, is there instead.

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
use crate::ledger::{Asker, Ledger};

/// The bucket of those that are written eventually.
pub const LAST: &str = "last";
/// The bucket of those that are written strongly.
pub const STRONG: &str = "strong";
/// So far apart clocks may be before a node takes no writes.
const CLOCK_BOUND: Duration = Duration::from_secs(10);
/// How long all clients use one key before they go to the next.
const TURN: Duration = Duration::from_secs(3);
/// After so many turns an eventual key is used again: longer than the clocks' bound.
const TURNS: u128 = 8;
const BETWEEN: Duration = Duration::from_millis(60);
/// How long one node may take.
const WITHIN: Duration = Duration::from_secs(3);
/// How many tries of one write are told apart.
const TRIES_MAX: u32 = 3;
const CONFIGURATIONS_MAX: usize = 200_000;

type Name = (&'static str, String);

/// What was done to a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// This was put.
    Put(u64),
    /// This was there.
    Got(Option<u64>),
}

/// One request with all its tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// When it was begun.
    pub begun: Duration,
    /// When it was answered or given up.
    pub ended: Duration,
    /// Whether it was done, as its client was told.
    pub is_done: bool,
    /// How many nodes may have carried it out, one after the other.
    pub tries: u32,
    /// What it was.
    pub what: What,
}

/// All registers.
#[derive(Debug)]
pub struct Registers {
    founded: Instant,
    put: AtomicU64,
    histories: Mutex<BTreeMap<Name, Vec<Access>>>,
}

/// What is wrong with them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judged {
    /// How many there are.
    pub registers: usize,
    /// Strong ones with too many concurrent requests to tell.
    pub undecided: usize,
    /// What is not as it should be.
    pub wrong: Vec<String>,
}

impl Default for Registers {
    fn default() -> Self {
        Self { founded: Instant::now(), put: AtomicU64::default(), histories: Mutex::default() }
    }
}

impl Registers {
    /// Makes the buckets what they are for.
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

    /// Reads all registers once more, and judges all that was ever told of them. Nobody may write meanwhile.
    ///
    /// # Errors
    /// If nothing can be read at all.
    pub async fn judge(self: &Arc<Self>, cluster: &Cluster) -> Result<Judged, FaultsError> {
        let endpoints = cluster.endpoints_for(2, 0);
        let registers = self.clone();
        let judging = move || async move {
            let client = Client::new(endpoints)?;
            let histories = registers.histories.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut judged = Judged { registers: histories.len(), ..Judged::default() };
            for ((bucket, key), mut history) in histories {
                let begun = registers.founded.elapsed();
                let read = client.get_with(bucket, &key, &options(bucket)).await;
                let ended = registers.founded.elapsed();
                let Ok(found) = read.as_ref().map(number) else {
                    judged.wrong.push(format!("{bucket}/{key} cannot be read: {read:?}"));
                    continue;
                };
                let access = Access { begun, ended, is_done: true, tries: 1, what: What::Got(found) };
                if bucket == LAST {
                    judged.wrong.extend(overridden(&history, found).map(|why| format!("{bucket}/{key}: {why}")));
                    continue;
                }
                history.push(access);
                match order(&history) {
                    Linearity::Linear => {}
                    Linearity::GaveUp => judged.undecided += 1,
                    Linearity::NotLinear => {
                        judged.wrong.push(format!("{bucket}/{key} is not linearizable: {history:?}"))
                    }
                }
                registers.note((bucket, key), access);
            }
            Ok::<_, FaultsError>(judged)
        };
        cluster.network().inside(cluster.clients_of(2), judging).await?
    }
}

/// An acknowledged put that is not there, though all that could have written what is there had ended before it began.
fn overridden(history: &[Access], found: Option<u64>) -> Option<String> {
    let writer = |number| history.iter().find(|access| access.what == What::Put(number));
    let ended = match found {
        None => None,
        Some(number) => match writer(number) {
            None => return Some(format!("{number} is there, which nobody put")),
            // One that was given up may be carried out for as long as nodes may take.
            Some(access) => Some(access.ended + CLOCK_BOUND + if access.is_done { Duration::ZERO } else { WITHIN }),
        },
    };
    let lost = history.iter().find(|access| {
        matches!(access.what, What::Put(_)) && access.is_done && ended.is_none_or(|ended| access.begun > ended)
    })?;
    let there = found.map_or_else(|| "nothing is there".to_owned(), |number| format!("{:?} is there", writer(number)));
    Some(format!("{lost:?} cannot be seen; {there}"))
}

struct Register;

impl Model for Register {
    type State = Option<u64>;
    type Operation = What;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn apply(&self, state: &Option<u64>, operation: &What) -> Option<Option<u64>> {
        match operation {
            What::Put(number) => Some(Some(*number)),
            What::Got(found) => (found == state).then_some(*state),
        }
    }
}

/// Whether the requests could have been carried out one at a time.
fn order(history: &[Access]) -> Linearity {
    let was_seen = |what: What| {
        let What::Put(number) = what else { return true };
        history.iter().any(|access| access.what == What::Got(Some(number)))
    };
    let mut moments: Vec<(Duration, usize, bool)> = history
        .iter()
        .enumerate()
        .flat_map(|(at, access)| [(access.begun, at, false), (access.ended, at, true)])
        .collect();
    // At one moment all questions come before all answers: then they overlap, and may be in either order.
    moments.sort_by_key(|&(moment, at, is_end)| (moment, is_end, at));
    let place = |at: usize, is_end: bool| {
        moments.iter().position(|&(_, of, end)| of == at && end == is_end).unwrap_or_default() as u64
    };
    let mut intervals = Vec::new();
    for (at, access) in history.iter().enumerate() {
        let (invoked, operation) = (place(at, false), access.what);
        if access.is_done {
            intervals.push(Interval { invoked, answered: Some(place(at, true)), operation });
        }
        // What nobody saw explains nothing.
        if matches!(operation, What::Put(_)) && was_seen(operation) {
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

/// Clients of registers at work: two in each zone. They end when this is dropped.
#[derive(Debug)]
pub struct RegisterTraffic {
    stop: watch::Sender<bool>,
    zones: JoinSet<Result<(), FaultsError>>,
}

impl RegisterTraffic {
    /// Lets them begin.
    pub fn start(cluster: &Cluster, ledger: &Arc<Ledger>, registers: &Arc<Registers>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut zones = JoinSet::new();
        for zone in 0..ZONES {
            for bucket in [LAST, STRONG] {
                let endpoints = cluster.endpoints_for(zone, 1);
                let (ledger, registers, stopped) = (ledger.clone(), registers.clone(), stopped.clone());
                let work = move || async move {
                    let user = User::new(&endpoints, zone, bucket, &ledger, &registers)?;
                    while !*stopped.borrow() {
                        user.turn().await;
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

    /// Lets them finish what they are at, and waits for that.
    ///
    /// # Errors
    /// If one of them failed.
    pub async fn stop(mut self) -> Result<(), FaultsError> {
        self.stop.send_replace(true);
        while let Some(ended) = self.zones.join_next().await {
            ended.map_err(|error| FaultsError::system("use registers")(std::io::Error::other(error)))??;
        }
        Ok(())
    }
}

struct User {
    bucket: &'static str,
    zone: usize,
    client: Client,
    ledger: Arc<Ledger>,
    registers: Arc<Registers>,
    tries: Arc<AtomicU32>,
}

impl User {
    fn new(
        endpoints: &[String],
        zone: usize,
        bucket: &'static str,
        ledger: &Arc<Ledger>,
        registers: &Arc<Registers>,
    ) -> Result<Self, FaultsError> {
        let tries = Arc::new(AtomicU32::new(0));
        let (seen, watching, asker) = (tries.clone(), ledger.clone(), Asker { zone, is_strong: bucket == STRONG });
        let client = Client::new(endpoints)?.watched(move |attempt| {
            if attempt.outcome != Outcome::NoConnection {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            watching.attempted(asker, attempt);
        });
        Ok(Self { bucket, zone, client, ledger: ledger.clone(), registers: registers.clone(), tries })
    }

    async fn turn(&self) {
        let begun = self.registers.founded.elapsed();
        let turn = begun.as_millis() / TURN.as_millis();
        let key = if self.bucket == LAST { turn % TURNS } else { turn }.to_string();
        self.tries.store(0, Ordering::Relaxed);
        let number_put = self.registers.put.fetch_add(1, Ordering::Relaxed);
        let begun_at = Instant::now();
        // Who writes eventually need not look: what it would see may be old, and nothing is promised of that.
        let (what, is_done) = if self.bucket == STRONG && number_put.is_multiple_of(2) {
            match self.client.get_with(self.bucket, &key, &options(self.bucket)).await {
                Ok(read) => (What::Got(number(&read)), true),
                Err(_) => return,
            }
        } else {
            let value = Value::new(number_put.to_string(), "text/plain");
            let put = self.client.put_with(self.bucket, &key, value, None, &options(self.bucket)).await;
            if put.is_err() && self.bucket == LAST {
                self.ledger.given_up(Asker { zone: self.zone, is_strong: false }, begun_at);
            }
            (What::Put(number_put), put.is_ok())
        };
        let (ended, tries) = (self.registers.founded.elapsed(), self.tries.load(Ordering::Relaxed));
        self.registers.note((self.bucket, key), Access { begun, ended, is_done, tries, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(begun: u64, ended: u64, is_done: bool, tries: u32, what: What) -> Access {
        Access { begun: Duration::from_secs(begun), ended: Duration::from_secs(ended), is_done, tries, what }
    }

    #[test]
    fn a_put_may_hide_another_only_within_the_clocks_bound() {
        let history = |gap: u64| [access(0, 1, true, 1, What::Put(1)), access(1 + gap, 2 + gap, true, 1, What::Put(2))];
        assert_eq!(overridden(&history(11), Some(2)), None);
        assert_eq!(overridden(&history(9), Some(1)), None, "its clock may have been ahead");
        assert!(overridden(&history(11), Some(1)).is_some());
        assert!(overridden(&history(11), Some(7)).is_some(), "nobody put it");
        assert!(overridden(&history(0), None).is_some(), "nothing is there");
        let mut given_up = history(11);
        given_up[0].is_done = false;
        assert_eq!(overridden(&given_up, Some(1)), None, "it may have been carried out late");
        given_up[1].is_done = false;
        assert_eq!(overridden(&given_up, None), None, "nothing was acknowledged");
    }

    #[test]
    fn an_old_value_after_a_new_one_is_not_linearizable() {
        let put = |number, done| access(0, 1, done, 1, What::Put(number));
        let got = |at, found| access(at, at + 1, true, 1, What::Got(found));
        assert_eq!(order(&[put(1, true), got(2, Some(1))]), Linearity::Linear);
        assert_eq!(order(&[put(1, true), got(2, None)]), Linearity::NotLinear);
        assert_eq!(
            order(&[put(1, false), got(2, None), got(4, Some(1))]),
            Linearity::Linear,
            "it was carried out late"
        );
        assert_eq!(order(&[put(1, false), got(2, Some(1)), got(4, None)]), Linearity::NotLinear);
        let mut twice = vec![put(1, true), access(2, 3, true, 1, What::Put(2)), got(4, Some(2)), got(6, Some(1))];
        assert_eq!(order(&twice), Linearity::NotLinear);
        twice[0].tries = 2;
        assert_eq!(order(&twice), Linearity::Linear, "a second try may surface later");
    }
}
