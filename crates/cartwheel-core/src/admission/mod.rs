//! How much background work may begin, so that it does not slow clients down (paper, section 6.5).
//!
//! The paper's admission controller: background work comes in slices, and how many may begin in a second follows from how long
//! requests of clients took of late. The 99th percentile of the last 60 seconds, and that of the last second, are held against a
//! limit: the target that is set, or, if that is lower, a little above what requests took while hardly any background work was done.
//! Over it the rate is halved, second by second; below it, it grows. It never falls below a floor, so all background work goes on.

mod latency;

use std::time::Duration;

use crate::value::time::Instant;
use latency::{Histogram, WINDOW_S, Window};

/// A kind of background work. Each has an allowance of its own, so that none starves another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WorkClass {
    /// A key is handed over to its home.
    HandOver,
    /// A partition begins to be compared with a peer.
    Compare,
    /// The digests of a range of keys are listed, for a comparison.
    List,
    /// A key that differs is made equal here and at a peer.
    Repair,
    /// A record that was lost is made good.
    Heal,
    /// A part of a partition is scanned, to build its Merkle tree or to check it.
    Scan,
    /// A record is reclaimed.
    Collect,
    /// Records are handed out to a node that is to be their home, or stored by it.
    Transfer,
    /// An entry of the index of hints is counted, after a start or after a write whose outcome is not known.
    Count,
    /// A record that the node is not to keep any longer is removed.
    Purge,
}

/// How many kinds there are.
const KINDS: usize = 10;

impl WorkClass {
    /// All of them.
    pub const ALL: [Self; KINDS] = [
        Self::HandOver,
        Self::Compare,
        Self::List,
        Self::Repair,
        Self::Heal,
        Self::Scan,
        Self::Collect,
        Self::Transfer,
        Self::Count,
        Self::Purge,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandOver => "hand_over",
            Self::Compare => "compare",
            Self::List => "list",
            Self::Repair => "repair",
            Self::Heal => "heal",
            Self::Scan => "scan",
            Self::Collect => "gc",
            Self::Transfer => "transfer",
            Self::Count => "count",
            Self::Purge => "purge",
        }
    }
}

/// So many records that are read in one go take about as long as one key's work.
const RECORDS_IN_A_UNIT: i64 = 16;

/// The least and the most units of each kind a second.
const RATE_MIN: u64 = 128;
const RATE_MAX: u64 = 16_384;
/// Up to here the rate grows though nothing uses it.
const RATE_UNUSED_MAX: u64 = 1_024;
/// Up to here, whatever is begun of it is hardly any.
const RATE_QUIET_MAX: u64 = 2 * RATE_MIN;
/// How much of a second's allowance may be used at once: more would be felt as a burst.
const BURST: Duration = Duration::from_millis(50);
/// How long work that was begun without asking may keep the rest waiting.
const DEBT: Duration = Duration::from_secs(1);
/// Of fewer requests in a second, that second says nothing of them.
const REQUESTS_MIN: u64 = 20;
/// Of fewer requests it is not known how long they take without background work.
const QUIET_REQUESTS_MIN: u64 = 200;
/// After a start, requests take longer for a while, whatever is done beside them; so many seconds in which there were any say nothing.
const SETTLING_SECONDS: u32 = 10;
/// Half of what is known of that is forgotten after so many quiet seconds.
const QUIET_SECONDS: u32 = 60;
/// What requests may take above that, if an eighth is less: a shorter time is noise.
const SLACK_MIN: Duration = Duration::from_millis(1);

const UNIT: i64 = 1_000_000;
const SECOND_US: u64 = 1_000_000;

/// What an operator may see of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Admitted {
    /// How many units of work of each kind may begin in a second; one is about a key's.
    pub rate: u64,
    /// The 99th percentile of the requests that ended well in the last 60 seconds.
    pub p99: Duration,
    /// What that is held against.
    pub limit: Duration,
    /// How many slices have begun, by kind as in [`WorkClass::ALL`].
    pub begun: [u64; KINDS],
}

/// Decides how much background work may begin.
#[derive(Clone, Debug)]
pub struct Admission {
    target: Duration,
    window: Window,
    /// How long requests took in seconds in which hardly any background work was done.
    quiet: Histogram,
    quiet_seconds: u32,
    /// Of the seconds after the start, so many are to come that say nothing.
    settling: u32,
    /// The second that `window` is in, of the node's clock.
    second: u64,
    /// Millionths of units begun in it.
    used: u64,
    /// Requests were refused in it because there were too many.
    overloaded: bool,
    rate: u64,
    /// What each kind may use now, in millionths of a unit; a debt if below zero.
    allowances: [i64; KINDS],
    filled_at: Instant,
    /// The kinds that were told to wait.
    waiting: [bool; KINDS],
    begun: [u64; KINDS],
}

impl Admission {
    /// A controller that lets background work push the 99th percentile of clients' requests no further than `target`.
    pub fn new(target: Duration) -> Self {
        Self {
            target,
            window: Window::default(),
            quiet: Histogram::default(),
            quiet_seconds: 0,
            settling: SETTLING_SECONDS,
            second: 0,
            used: 0,
            overloaded: false,
            rate: RATE_MIN,
            allowances: [0; KINDS],
            filled_at: Instant::default(),
            waiting: [false; KINDS],
            begun: [0; KINDS],
        }
    }

    /// A client's request has ended well, so long after it came.
    pub fn served(&mut self, took: Duration) {
        self.window.record(took);
    }

    /// A client's request was refused because there are too many.
    pub const fn overloaded(&mut self) {
        self.overloaded = true;
    }

    /// How many units of a kind may begin now.
    pub fn room(&mut self, slice: WorkClass, now: Instant) -> usize {
        self.advance(now);
        let allowance = self.allowances[slice as usize];
        self.waiting[slice as usize] = allowance <= 0;
        usize::try_from((allowance + UNIT - 1) / UNIT).unwrap_or(0)
    }

    /// A slice begins, whether there is room or not; what follows waits the longer.
    pub fn begin(&mut self, slice: WorkClass, now: Instant) {
        self.advance(now);
        self.begun[slice as usize] += 1;
        self.charge(slice, UNIT);
    }

    /// A slice that has begun has read so many records: the more, the longer what follows waits.
    pub fn has_read(&mut self, slice: WorkClass, records: usize, now: Instant) {
        self.advance(now);
        self.charge(slice, records as i64 * UNIT / RECORDS_IN_A_UNIT);
    }

    /// A slice that has begun turns out to be the work of so many keys: the more, the longer what follows waits.
    pub fn does(&mut self, slice: WorkClass, keys: usize, now: Instant) {
        self.advance(now);
        self.charge(slice, keys as i64 * UNIT);
    }

    fn charge(&mut self, slice: WorkClass, millionths: i64) {
        let debt_max = -(self.rate as i64 * DEBT.as_micros() as i64);
        let allowance = &mut self.allowances[slice as usize];
        *allowance = (*allowance - millionths).max(debt_max);
        self.used += millionths.unsigned_abs();
    }

    /// Begins a slice if there is room; if not, [`Self::wake_at`] says when there is.
    pub fn may_begin(&mut self, slice: WorkClass, now: Instant) -> bool {
        let may = self.room(slice, now) > 0;
        if may {
            self.begin(slice, now);
        }
        may
    }

    /// From when on there is room for a slice of a kind.
    pub const fn next_at(&self, slice: WorkClass) -> Instant {
        let missing = 1 - self.allowances[slice as usize];
        if missing <= 0 {
            return self.filled_at;
        }
        Instant(self.filled_at.0.saturating_add((missing as u64).div_ceil(self.rate)))
    }

    /// When there is room for something that was told to wait.
    pub fn wake_at(&self) -> Option<Instant> {
        WorkClass::ALL.into_iter().filter(|&slice| self.waiting[slice as usize]).map(|slice| self.next_at(slice)).min()
    }

    /// What it has come to.
    pub fn admitted(&self) -> Admitted {
        Admitted { rate: self.rate, p99: self.window.p99(), limit: self.limit(), begun: self.begun }
    }

    /// The time that the 99th percentile is held against.
    fn limit(&self) -> Duration {
        if self.quiet.count() < QUIET_REQUESTS_MIN {
            return self.target;
        }
        let quiet = self.quiet.p99();
        self.target.min(quiet + (quiet / 8).max(SLACK_MIN))
    }

    /// Time goes on.
    pub fn advance(&mut self, now: Instant) {
        let second = now.0 / SECOND_US;
        // After a minute in which nothing was asked, nothing is left to be forgotten.
        for _ in 0..second.saturating_sub(self.second).min(WINDOW_S as u64) {
            self.end_second();
        }
        self.second = self.second.max(second);
        let elapsed_us = now.since(self.filled_at).as_micros() as u64;
        let rate = self.rate as i64;
        for (allowance, waiting) in self.allowances.iter_mut().zip(&mut self.waiting) {
            let filled = allowance.saturating_add(rate.saturating_mul(elapsed_us as i64));
            *allowance = filled.min(rate * BURST.as_micros() as i64);
            *waiting &= *allowance <= 0;
        }
        self.filled_at = self.filled_at.max(now);
    }

    fn end_second(&mut self) {
        let ended = self.window.end_second();
        let (used, overloaded) = (std::mem::take(&mut self.used) / UNIT as u64, std::mem::take(&mut self.overloaded));
        let says_something = ended.count() >= REQUESTS_MIN;
        if says_something && self.settling > 0 {
            self.settling -= 1;
            self.rate = RATE_MIN;
            return;
        }
        if (used <= RATE_MIN || self.rate <= RATE_QUIET_MAX) && !overloaded {
            self.learn(&ended);
        }
        let limit = self.limit();
        let rate = if overloaded || (says_something && ended.p99() > limit) {
            self.rate / 2
        } else if !says_something {
            self.rate * 2
        } else if self.window.p99() > limit {
            self.rate
        } else {
            self.rate + self.rate / 8
        };
        let is_used = used >= self.rate / 2;
        let most = if is_used { RATE_MAX } else { RATE_UNUSED_MAX.max(self.rate) };
        self.rate = rate.clamp(RATE_MIN, most);
    }

    /// Hardly any background work was done in this second.
    fn learn(&mut self, ended: &Histogram) {
        self.quiet.add(ended);
        self.quiet_seconds += u32::from(ended.count() > 0);
        if self.quiet_seconds >= QUIET_SECONDS {
            self.quiet_seconds = 0;
            self.quiet.halve();
        }
    }
}

#[cfg(test)]
mod tests;
