//! Reads that are answered at once: one replica is enough, this node is one, and the record is in memory.
//!
//! Such a read begins no operation, sends nothing and needs no timer. Its reply is the one that the coordinator would give ([`crate::coordinator`]),
//! to which every other read goes.

use std::time::Duration;

use super::Node;
use crate::cluster::configuration::Home;
use crate::coordinator::get::Shows;
use crate::message::client::{Acks, Consistency, Get, Got};
use crate::mutation::Mutation;
use crate::ring::quorum::Quorum;
use crate::value::state::{Sibling, State};
use crate::value::time::Now;

/// What a get that is answered at once has found, where it lies.
pub struct FoundAtOnce<'a> {
    now: Now,
    shows: Shows<'a>,
    get: &'a Get,
    state: &'a State,
}

impl FoundAtOnce<'_> {
    /// The reply.
    pub fn got(&self) -> Got {
        let acks = Acks { home: 1, standin: 0, zones: 1 };
        self.shows.got(&self.get.key, self.state, self.get.wants_context, acks)
    }

    /// What [`Got::last`] gives now, without a copy of the whole reply.
    pub fn last(&self) -> Option<&Sibling> {
        self.shows.last(self.state, self.now.wall)
    }
}

impl Node {
    /// Answers a get at once, if this node can: calls `take` with what it has found. If not, nothing has happened, and the get has to become an
    /// [`Input::Client`](super::Input::Client).
    ///
    /// `waited` says how long the get has waited, for the admission controller.
    pub fn read_at_once<T>(
        &mut self,
        now: Now,
        waited: Duration,
        get: &Get,
        take: impl FnOnce(&FoundAtOnce<'_>) -> T,
    ) -> Option<T> {
        let taken = take(&self.at_once(now, get)?);
        self.admission.served(waited);
        Some(taken)
    }

    /// What a get finds, if the record is in memory and this replica alone is enough.
    pub(super) fn at_once<'a>(&'a self, now: Now, get: &'a Get) -> Option<FoundAtOnce<'a>> {
        let broken = self.config.broken;
        let is_plain = get.consistency == Consistency::Eventual && get.seen.is_none();
        // The simulator finds other broken rules in the usual way of reading.
        if !is_plain || broken.is_other_than(Mutation::AtOnceUnchecked) || self.replica.is_superseded(&get.key) {
            return None;
        }
        let settings = self.held.view().settings(get.key.bucket());
        let r = Some(get.r.unwrap_or(settings.r)).filter(|r| (1..=settings.n).contains(r))?;
        // Reads that go the usual way probe homes that have not answered of late.
        let is_late = |home: &Home| self.reach.is_late(home.node, now.instant);
        let homes = self.held.homes_if_quorum_alone(&get.key, Quorum::reads(r.into(), settings.n));
        let is_enough = homes.is_some_and(|homes| !homes.iter().any(is_late));
        if !(is_enough || r == 1 && broken.is(Mutation::AtOnceUnchecked)) {
            return None;
        }
        let state = self.replica.at_hand(&get.key)?;
        let shows = Shows { sealer: &self.sealer, epoch: self.replica.epoch(), settings };
        Some(FoundAtOnce { now, shows, get, state })
    }
}
