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
use crate::value::time::Now;

impl Node {
    /// Answers a get at once, if this node can. If not, nothing has happened, and the get has to become an [`Input::Client`](super::Input::Client).
    ///
    /// `waited` says how long the get has waited, for the admission controller.
    pub fn read_at_once(&mut self, now: Now, waited: Duration, get: &Get) -> Option<Got> {
        let got = self.at_once(now, get)?;
        self.admission.served(waited);
        Some(got)
    }

    /// The reply to a get, if the record is in memory and this replica alone is enough.
    pub(super) fn at_once(&mut self, now: Now, get: &Get) -> Option<Got> {
        let broken = self.config.broken;
        let is_plain = get.consistency == Consistency::Eventual && get.seen.is_none();
        // The simulator finds other broken rules in the usual way of reading.
        if !is_plain || broken.is_other_than(Mutation::AtOnceUnchecked) || self.replica.is_superseded(&get.key) {
            return None;
        }
        let settings = *self.held.view().settings(get.key.bucket());
        let r = Some(get.r.unwrap_or(settings.r)).filter(|r| (1..=settings.n).contains(r))?;
        // Reads that go the usual way probe homes that have not answered of late.
        let is_late = |home: &Home| self.reach.is_late(home.node, now.instant);
        let is_enough = self.held.is_quorum_alone(&get.key, Quorum::reads(r.into(), settings.n))
            && !self.held.homes_in_order(&get.key).any(is_late);
        if !(is_enough || r == 1 && broken.is(Mutation::AtOnceUnchecked)) {
            return None;
        }
        let state = self.replica.at_hand(&get.key)?;
        let acks = Acks { home: 1, standin: 0, zones: 1 };
        let shows = Shows { sealer: &self.sealer, epoch: self.replica.epoch(), settings: &settings };
        Some(shows.got(&get.key, &state, get.wants_context, acks))
    }
}
