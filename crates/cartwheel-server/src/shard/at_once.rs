//! Reads that the shard's machine answers at once, without a turn.
//!
//! A client's connection is a task of the shard's thread, so between two turns it can ask the machine itself. That saves what a request through the
//! queue costs: an entry there, a turn, and another wake of the connection. Tasks of other threads cannot: they would make the shard wait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use cartwheel_core::message::client::Get;
use cartwheel_core::node::FoundAtOnce;
use cartwheel_core::value::time::Instant;

use super::Machine;
use crate::os::clock::Clock;

/// A machine that tasks of its thread can reach. Only that thread uses it, so it is never waited for.
pub(super) struct SharedMachine<M>(Arc<Mutex<M>>);

impl<M: Machine> SharedMachine<M> {
    pub(super) fn new(machine: M) -> Self {
        Self(Arc::new(Mutex::new(machine)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, M> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets tasks of this thread read from the machine, for as long as it lives.
    pub(super) fn open(&self, at_once: &AtOnce, clock: Clock) {
        let (machine, last_turn) = (Arc::downgrade(&self.0), at_once.last_turn.clone());
        let read = move |get: &Get, take: &mut dyn FnMut(&FoundAtOnce<'_>)| {
            let Some(machine) = machine.upgrade() else { return };
            let now = clock.now();
            let waited = last_turn.wait_of_a_read_at(now.instant);
            // Only within a turn is it locked, and then no other task of this thread runs.
            if let Ok(mut machine) = machine.try_lock() {
                machine.read_at_once(now, waited, get, take);
            }
        };
        // A machine has one thread.
        let _ = at_once.reader.set((thread::current().id(), Box::new(read)));
    }
}

type Read = Box<dyn Fn(&Get, &mut dyn FnMut(&FoundAtOnce<'_>)) + Send + Sync>;

/// What reads at once use. Clones share it.
#[derive(Clone, Default)]
pub(super) struct AtOnce {
    reader: Arc<OnceLock<(ThreadId, Read)>>,
    last_turn: Arc<LastTurn>,
}

impl AtOnce {
    /// Gives `take` what a read finds, if the calling task is one of the shard's thread and the machine can answer at once.
    pub(super) fn read<T>(&self, get: &Get, take: impl FnOnce(&FoundAtOnce<'_>) -> T) -> Option<T> {
        let (thread, read) = self.reader.get()?;
        if *thread != thread::current().id() {
            return None;
        }
        let (mut take, mut taken) = (Some(take), None);
        read(get, &mut |found| taken = take.take().map(|take| take(found)));
        taken
    }

    /// Records that a turn has ended.
    pub(super) fn turn(&self, ended: Instant, took: Duration) {
        self.last_turn.ended_us.store(ended.0, Ordering::Relaxed);
        self.last_turn.took_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl fmt::Debug for AtOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtOnce").finish_non_exhaustive()
    }
}

/// The last turn of the shard.
#[derive(Default)]
struct LastTurn {
    ended_us: AtomicU64,
    took_us: AtomicU64,
}

impl LastTurn {
    /// How long a read may have waited that is served now. Nobody knows when it arrived, but if a turn has just ended, it may have waited for the
    /// whole of it.
    fn wait_of_a_read_at(&self, now: Instant) -> Duration {
        let (ended, took) = (self.ended_us.load(Ordering::Relaxed), self.took_us.load(Ordering::Relaxed));
        let since = now.0.saturating_sub(ended);
        if since < took { Duration::from_micros(took) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_right_after_a_turn_has_waited_for_it() {
        let at_once = AtOnce::default();
        at_once.turn(Instant(10_000), Duration::from_micros(400));
        let waited = |now| at_once.last_turn.wait_of_a_read_at(Instant(now)).as_micros();
        assert_eq!([10_000, 10_399, 10_400, 20_000].map(waited), [400, 400, 0, 0]);
    }
}
