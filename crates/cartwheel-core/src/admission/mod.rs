//! Admission control: how much background work may begin, so that it does not slow clients down (paper, section 6.5).
//!
//! Background work comes in units, and the number that may begin in a second follows from the latency of recent client requests. The 99th
//! percentiles of the last 60 seconds and of the last second are compared with a limit: the configured target or, if lower, a little above the
//! latency without background work. Above the limit the rate halves each second; below it, it grows. It never falls below a floor, so all
//! background work makes progress.

mod latency;

use std::time::Duration;

use crate::value::time::Instant;
use latency::{Histogram, WINDOW_S, Window};

/// A class of background work. Each has an allowance of its own, so that none starves another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WorkClass {
    /// Hand a key over to its home.
    HandOver,
    /// Begin an exchange of a partition with a peer.
    Compare,
    /// List the digests of a range of keys, for an exchange.
    List,
    /// Make a differing key equal here and at a peer.
    Repair,
    /// Heal a lost record.
    Heal,
    /// Scan a part of a partition, to build its Merkle tree or to check it.
    Scan,
    /// Collect the garbage of a record.
    Collect,
    /// Send records to a node that is becoming their home, or store them there.
    Transfer,
    /// Count an entry of the hint index, after a start or after a write with an unknown outcome.
    Count,
    /// Purge a record that the node no longer keeps.
    Purge,
}

const CLASSES: usize = 10;

impl WorkClass {
    /// All classes, in the order of [`Admitted::begun`].
    pub const ALL: [Self; CLASSES] = [
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

    /// The name in metrics.
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

/// Reading this many records in one go takes about as long as the work for one key.
const RECORDS_IN_A_UNIT: i64 = 16;

/// The minimum and maximum of units of each class in a second.
const RATE_MIN: u64 = 128;
const RATE_MAX: u64 = 16_384;
/// An unused rate grows no further than this.
const RATE_UNUSED_MAX: u64 = 1_024;
/// Up to this rate, background work is too little to slow clients down.
const RATE_QUIET_MAX: u64 = 2 * RATE_MIN;
/// The part of a second's allowance that may be used at once. More would be felt as a burst.
const BURST: Duration = Duration::from_millis(50);
/// The longest time for which work that began without admission may hold back the rest.
const DEBT: Duration = Duration::from_secs(1);
/// A second with fewer requests says nothing about latency.
const REQUESTS_MIN: u64 = 20;
/// With fewer requests the quiet latency is unknown.
const QUIET_REQUESTS_MIN: u64 = 200;
/// After a start, requests are slow for a while in any case. This many seconds with requests are ignored.
const SETTLING_SECONDS: u32 = 10;
/// After this many quiet seconds, half of the quiet latencies are dropped.
const QUIET_SECONDS: u32 = 60;
/// The least distance between the quiet latency and the limit, where an eighth is less. A shorter time is noise.
const SLACK_MIN: Duration = Duration::from_millis(1);

const UNIT: i64 = 1_000_000;
const SECOND_US: u64 = 1_000_000;

/// The controller's state, for operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Admitted {
    /// Units of work of each class that may begin in a second. One unit is about one key's work.
    pub rate: u64,
    /// The 99th percentile of the requests that succeeded in the last 60 seconds.
    pub p99: Duration,
    /// The limit with which `p99` is compared.
    pub limit: Duration,
    /// Work begun since the start, by class as in [`WorkClass::ALL`].
    pub begun: [u64; CLASSES],
}

/// Decides how much background work may begin.
#[derive(Clone, Debug)]
pub struct Admission {
    target: Duration,
    window: Window,
    /// Latencies in seconds with hardly any background work.
    quiet: Histogram,
    quiet_seconds: u32,
    /// How many more seconds with requests are ignored, after the start.
    settling: u32,
    /// The second of the node's clock that `window` is in.
    second: u64,
    /// Millionths of units begun in this second.
    used: u64,
    /// Requests were refused in this second because there were too many.
    overloaded: bool,
    rate: u64,
    /// What each class may use now, in millionths of a unit. Negative: a debt.
    allowances: [i64; CLASSES],
    filled_at: Instant,
    /// The classes that wait for room.
    waiting: [bool; CLASSES],
    begun: [u64; CLASSES],
}

impl Admission {
    /// A controller that keeps the 99th percentile of clients' requests at `target` or below.
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
            allowances: [0; CLASSES],
            filled_at: Instant::default(),
            waiting: [false; CLASSES],
            begun: [0; CLASSES],
        }
    }

    /// Records a client's request that succeeded and took `took`.
    pub fn served(&mut self, took: Duration) {
        self.window.record(took);
    }

    /// Records that a client's request was refused because there are too many.
    pub const fn overloaded(&mut self) {
        self.overloaded = true;
    }

    /// How many units of a class may begin now.
    pub fn room(&mut self, class: WorkClass, now: Instant) -> usize {
        self.advance(now);
        let allowance = self.allowances[class as usize];
        self.waiting[class as usize] = allowance <= 0;
        usize::try_from((allowance + UNIT - 1) / UNIT).unwrap_or(0)
    }

    /// Begins a unit whether there is room or not. Later work of the class waits the longer.
    pub fn begin(&mut self, class: WorkClass, now: Instant) {
        self.advance(now);
        self.begun[class as usize] += 1;
        self.charge(class, UNIT);
    }

    /// Charges a class for records that begun work has read.
    pub fn has_read(&mut self, class: WorkClass, records: usize, now: Instant) {
        self.advance(now);
        self.charge(class, records as i64 * UNIT / RECORDS_IN_A_UNIT);
    }

    /// Charges a class for keys that begun work turns out to affect.
    pub fn does(&mut self, class: WorkClass, keys: usize, now: Instant) {
        self.advance(now);
        self.charge(class, keys as i64 * UNIT);
    }

    fn charge(&mut self, class: WorkClass, millionths: i64) {
        let debt_max = -(self.rate as i64 * DEBT.as_micros() as i64);
        let allowance = &mut self.allowances[class as usize];
        *allowance = (*allowance - millionths).max(debt_max);
        self.used += millionths.unsigned_abs();
    }

    /// Begins a unit if there is room. If not, [`Self::wake_at`] says when there will be.
    pub fn may_begin(&mut self, class: WorkClass, now: Instant) -> bool {
        let may = self.room(class, now) > 0;
        if may {
            self.begin(class, now);
        }
        may
    }

    /// The time from which there is room for a class.
    pub const fn next_at(&self, class: WorkClass) -> Instant {
        let missing = 1 - self.allowances[class as usize];
        if missing <= 0 {
            return self.filled_at;
        }
        Instant(self.filled_at.0.saturating_add((missing as u64).div_ceil(self.rate)))
    }

    /// The earliest time at which a waiting class has room.
    pub fn wake_at(&self) -> Option<Instant> {
        WorkClass::ALL.into_iter().filter(|&class| self.waiting[class as usize]).map(|class| self.next_at(class)).min()
    }

    /// The controller's state.
    pub fn admitted(&self) -> Admitted {
        Admitted { rate: self.rate, p99: self.window.p99(), limit: self.limit(), begun: self.begun }
    }

    /// The limit with which the 99th percentiles are compared.
    fn limit(&self) -> Duration {
        if self.quiet.count() < QUIET_REQUESTS_MIN {
            return self.target;
        }
        let quiet = self.quiet.p99();
        self.target.min(quiet + (quiet / 8).max(SLACK_MIN))
    }

    /// Moves the controller's time to `now`.
    pub fn advance(&mut self, now: Instant) {
        let second = now.0 / SECOND_US;
        // After a minute without a call, the window is empty.
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

    /// Learns from a second with hardly any background work.
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
