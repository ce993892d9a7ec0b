//! The end of some runs: several disks are lost at once, and with them a majority of the homes of some partitions, or all of them. The
//! administrator marks the lost nodes as lost. The guarantees end with that, but data on the surviving homes is kept, and every key can be read
//! and written again.

use std::collections::BTreeSet;

use bytes::Bytes;
use cartwheel_core::value::dot::Incarnation;
use cartwheel_core::value::state::{Content, Sibling, State};

use super::{QUIET_US, Run, Stop, WAIT_US};
use crate::oracle::converged;
use crate::rng::{Rng, Stream};

/// The share of runs that end so, in a thousand.
const LOSSES_PER_MILLE: u32 = 125;
/// The most attempts of the administrator.
const TRIES_MAX: u32 = 12;

/// The generator for the end of a run, if it ends so.
pub(super) fn draw(seed: u64) -> Option<Rng> {
    let mut rng = Rng::new(seed, Stream::Losses);
    rng.chance(LOSSES_PER_MILLE).then_some(rng)
}

impl Run {
    /// Wipes the disks of some nodes, but never of all. `before` is what the homes of each key held until then.
    pub(super) fn majorities_are_lost(&mut self, mut rng: Rng, before: &[State]) -> Result<(), Stop> {
        let mut left = self.world.members();
        if left.len() < 2 {
            return Ok(());
        }
        let count = rng.range(1, left.len() as u64 - 1);
        let victims: Vec<usize> = (0..count).map(|_| left.swap_remove(rng.index(left.len()))).collect();
        let homes: Vec<Vec<usize>> = self.keys().iter().map(|key| self.world.homes(key)).collect();
        self.are_guarantees_over = true;
        for &victim in &victims {
            let all = self.world.machine(victim).disk().unsynced().count();
            self.world.crash(victim, all);
        }
        for &victim in &victims {
            self.world.wipe(victim, Incarnation(rng.bits()), Rng::new(rng.bits(), Stream::Wipe));
            self.world.start(victim);
        }
        self.mark_lost(left[rng.index(left.len())])?;
        self.quiet(QUIET_US)?;
        self.settle()?;
        self.become_equal()?;
        self.data_on_survivors_is_kept(before, &homes, &left)?;
        self.writes_succeed(false)?;
        self.quiet(QUIET_US)?;
        if let Err(message) = converged::no_hint_is_left(&self.world) {
            return Err(self.fail("all hints are handed over", None, message));
        }
        self.become_equal()
    }

    /// Marks the lost nodes as lost, once the node `through` knows that they are replaced.
    fn mark_lost(&mut self, through: usize) -> Result<(), Stop> {
        for _ in 0..TRIES_MAX {
            self.quiet(WAIT_US)?;
            let lost = self.world.lost_to(through);
            let view = self.world.machine(through).node().map(|node| node.held().view().clone());
            if view.is_some_and(|view| lost.iter().all(|&home| view.is_marked_lost(home))) {
                return Ok(());
            }
            self.world.mark_lost(through, lost);
        }
        Err(self.fail("lost nodes can be marked lost", None, self.world.describe_members(through)))
    }

    fn data_on_survivors_is_kept(&self, before: &[State], homes: &[Vec<usize>], left: &[usize]) -> Result<(), Stop> {
        for ((key, before), homes) in self.keys().iter().zip(before).zip(homes) {
            let held = converged::common_state(&self.world, key).map(|state| values(&state)).unwrap_or_default();
            let is_left = homes.iter().any(|home| left.contains(home));
            let expected = values(before);
            if !held.is_subset(&expected) || is_left && held != expected {
                let message = format!("of {expected:?} its homes hold\n{}", converged::holdings(&self.world, key));
                return Err(self.fail("data on surviving homes is kept", Some(key.clone()), message));
            }
        }
        Ok(())
    }
}

/// The values that do not expire.
fn values(state: &State) -> BTreeSet<Bytes> {
    let value = |sibling: &Sibling| match &sibling.content {
        Content::Value { bytes, .. } if sibling.expires.is_none() => Some(bytes.clone()),
        Content::Value { .. } | Content::Tombstone => None,
    };
    state.siblings().filter_map(value).collect()
}
