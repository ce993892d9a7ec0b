//! The end of some runs: disks are lost all at once, and with them a majority of the homes of some partitions, or all. An administrator
//! gives the lost ones up. No promise holds any more, but what is left on any home is kept, and every key can be read and written again.

use std::collections::BTreeSet;

use bytes::Bytes;
use cartwheel_core::value::dot::Incarnation;
use cartwheel_core::value::state::{Content, Sibling, State};

use super::{QUIET_US, Run, Stop, WAIT_US};
use crate::oracle::converged;
use crate::rng::{Rng, Stream};

/// How many runs in a thousand end so.
const LOSSES_PER_MILLE: u32 = 125;
/// How often an administrator tries.
const TRIES_MAX: u32 = 12;

/// Which runs end so, and whom they lose.
pub(super) fn draw(seed: u64) -> Option<Rng> {
    let mut rng = Rng::new(seed, Stream::Losses);
    rng.chance(LOSSES_PER_MILLE).then_some(rng)
}

impl Run {
    /// Some of the nodes lose their disks, and never all; each key's homes held this before.
    pub(super) fn majorities_are_lost(&mut self, mut rng: Rng, before: &[State]) -> Result<(), Stop> {
        let mut left = self.world.members();
        if left.len() < 2 {
            return Ok(());
        }
        let count = rng.range(1, left.len() as u64 - 1);
        let victims: Vec<usize> = (0..count).map(|_| left.swap_remove(rng.index(left.len()))).collect();
        let homes: Vec<Vec<usize>> = self.keys().iter().map(|key| self.world.homes(key)).collect();
        self.is_promise_over = true;
        for &victim in &victims {
            let all = self.world.machine(victim).disk().unsynced().count();
            self.world.crash(victim, all);
        }
        for &victim in &victims {
            self.world.wipe(victim, Incarnation(rng.bits()), Rng::new(rng.bits(), Stream::Wipe));
            self.world.start(victim);
        }
        self.give_up(left[rng.index(left.len())])?;
        self.quiet(QUIET_US)?;
        self.settle()?;
        self.become_equal()?;
        self.what_is_left_is_kept(before, &homes, &left)?;
        self.writes_succeed(false)?;
        self.quiet(QUIET_US)?;
        if let Err(message) = converged::nothing_is_owed(&self.world) {
            return Err(self.fail("hints go home", None, message));
        }
        self.become_equal()
    }

    /// An administrator gives the lost ones up, once the node that is asked has heard that they are replaced.
    fn give_up(&mut self, through: usize) -> Result<(), Stop> {
        for _ in 0..TRIES_MAX {
            self.quiet(WAIT_US)?;
            let lost = self.world.lost_to(through);
            let view = self.world.machine(through).node().map(|node| node.held().view().clone());
            if view.is_some_and(|view| lost.iter().all(|&home| view.is_marked_lost(home))) {
                return Ok(());
            }
            self.world.give_up(through, lost);
        }
        Err(self.fail("who is lost can be given up", None, self.world.who_is_there(through)))
    }

    fn what_is_left_is_kept(&self, before: &[State], homes: &[Vec<usize>], left: &[usize]) -> Result<(), Stop> {
        for ((key, before), homes) in self.keys().iter().zip(before).zip(homes) {
            let held = converged::common_state(&self.world, key).map(|state| values(&state)).unwrap_or_default();
            let is_left = homes.iter().any(|home| left.contains(home));
            let expected = values(before);
            if !held.is_subset(&expected) || is_left && held != expected {
                let message = format!("of {expected:?} its homes hold\n{}", converged::holdings(&self.world, key));
                return Err(self.fail("what is left is kept", Some(key.clone()), message));
            }
        }
        Ok(())
    }
}

/// The values that do not go by themselves.
fn values(state: &State) -> BTreeSet<Bytes> {
    let value = |sibling: &Sibling| match &sibling.content {
        Content::Value { bytes, .. } if sibling.expires.is_none() => Some(bytes.clone()),
        Content::Value { .. } | Content::Tombstone => None,
    };
    state.siblings().filter_map(value).collect()
}
