//! Checks of a healed cluster: emptied buckets leave nothing behind, indexes match records, and lists show what gets do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cartwheel_core::cluster::membership::Conflict;
use cartwheel_core::message::listing::{ListRequest, Listed, Listing};
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::key::Key;
use cartwheel_core::value::position::Position;
use cartwheel_core::value::state::State;

use super::{Run, Stop, WAIT_US, WAITS_MAX};
use crate::emptied;
use crate::oracle::key_index;

/// The keys on a page: fewer than a bucket has, so that a list has several pages.
const PAGE: u32 = 2;
/// The most pages of a list.
const PAGES_MAX: u32 = 1_000;

impl Run {
    /// Checks indexes and lists. `states` is what the replicas hold of the keys of the run.
    pub(super) fn lists_are_right(&mut self, states: &[State]) -> Result<(), Stop> {
        let mut waits = 0;
        loop {
            let stale = self.emptied.as_ref().and_then(|emptied| emptied.stale_value(&self.world));
            let (check, message) = match (stale, key_index::judge(&self.world)) {
                (None, None) => break,
                (Some(stale), _) => ("what a bucket held before it was emptied leaves the disks", stale),
                (None, Some(wrong)) => ("indexes match the records", wrong),
            };
            if waits == WAITS_MAX {
                return Err(self.fail(check, None, message));
            }
            waits += 1;
            self.quiet(WAIT_US)?;
        }
        let mut expected = BTreeMap::<Bytes, BTreeSet<Key>>::new();
        let node = self.any_member();
        let machine = self.world.machine(node);
        let wall = machine.clock.read(self.world.now_us()).wall;
        for (history, state) in self.clients.histories().iter().zip(states) {
            let keys = expected.entry(history.key.bucket().clone()).or_default();
            if shows_a_value(state, history.conflict, wall) {
                keys.insert(history.key.clone());
            }
        }
        for (bucket, keys) in expected {
            let found = self.list(node, &bucket)?;
            // Values may expire while the list is made.
            if !found.is_subset(&keys) || keys.difference(&found).any(|key| !self.may_have_expired(key)) {
                let message = format!("{} lists {found:?} of {keys:?}", self.world.cluster().name(node));
                return Err(self.fail("a list shows what gets show", None, message));
            }
        }
        let is_indexed =
            self.world.machine(node).node().is_some_and(|node| node.view().form(emptied::BUCKET).is_indexed);
        if let Some((must, may)) = self.emptied.as_ref().map(|emptied| emptied.expected(&self.world, node))
            && is_indexed
        {
            let found = self.list(node, &Bytes::from_static(emptied::BUCKET))?;
            // Which disks may be lost at once depends on the keys of the run alone.
            let are_kept = self.world.has_lost_a_disk() || must.is_subset(&found);
            if !are_kept || !found.is_subset(&may) {
                let message = format!("{} lists {found:?}; acknowledged are {must:?}", self.world.cluster().name(node));
                return Err(self.fail("an emptied bucket holds what was acknowledged since", None, message));
            }
        }
        Ok(())
    }

    /// Whether any write of a key expires at some time.
    fn may_have_expired(&self, key: &Key) -> bool {
        let node = self.world.homes(key).first().and_then(|&home| self.world.record(home, key));
        node.is_some_and(|record| record.is_ok_and(|record| record.state.siblings().any(|held| held.expires.is_some())))
    }

    /// All keys of a bucket, as a node lists them.
    fn list(&mut self, node: usize, bucket: &Bytes) -> Result<BTreeSet<Key>, Stop> {
        let Some(view) = self.world.machine(node).node().map(|node| node.view().clone()) else {
            return Err(self.fail("a healed cluster lists keys", None, "the node is down".to_owned()));
        };
        let (mut found, mut after) = (BTreeSet::new(), Position::default());
        for _ in 0..PAGES_MAX {
            let listing = Listing::Keys {
                bucket: bucket.clone(),
                generation: view.form(bucket).generation,
                after,
                prefix: Bytes::new(),
                keys_max: PAGE,
            };
            let request = ListRequest { listing, r: 1, timeout: Duration::from_secs(10) };
            let Some(id) = self.world.list(node, request) else {
                return Err(self.fail("a healed cluster lists keys", None, "the node is down".to_owned()));
            };
            while self.listed.as_ref().is_none_or(|(listed, _)| *listed != id) {
                self.turn()?;
            }
            match self.listed.take().map(|(_, listed)| listed) {
                Some(Ok(Listed::Keys { keys, next })) => {
                    for listed in keys {
                        if !found.insert(listed.key.clone()) {
                            let message = format!("{:?} is listed twice", listed.key);
                            return Err(self.fail("a list shows what gets show", None, message));
                        }
                    }
                    match next {
                        Some(next) => after = next,
                        None => return Ok(found),
                    }
                }
                other => return Err(self.fail("a healed cluster lists keys", None, format!("{other:?}"))),
            }
        }
        Err(self.fail("a list ends", None, format!("{bucket:?} has more than {PAGES_MAX} pages")))
    }
}

fn shows_a_value(state: &State, conflict: Conflict, wall: WallMs) -> bool {
    match conflict {
        Conflict::Siblings => state.siblings().any(|held| !held.is_deleted(wall)),
        Conflict::Lww => state.latest().is_some_and(|held| !held.is_deleted(wall)),
    }
}
