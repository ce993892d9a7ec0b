//! When a node looks after its clock.

use std::time::Duration;

use super::{Node, Step};
use crate::event::Event;
use crate::message::{Message, RequestId, Requester};
use crate::node::clock_guard::{ALARM_MS, Comparison, Judgement};

/// How often a node looks after its clock when nothing else happens.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(5);

impl Node {
    /// Tells if writes got timestamps far ahead of the wall clock, and when that has ended.
    pub(super) fn check_timestamps(&mut self, step: &mut Step) {
        let ahead_ms = self.replica.ahead_ms();
        let is_ahead = ahead_ms > ALARM_MS;
        let has_ended = step.now.instant >= self.next_check;
        if is_ahead != self.timestamps_ahead && (is_ahead || has_ended) {
            self.timestamps_ahead = is_ahead;
            step.effects.events.push(Event::TimestampsAhead { ahead_ms: if is_ahead { ahead_ms } else { 0 } });
        }
        if has_ended {
            self.replica.forget_ahead();
            self.next_check = step.now.instant + CHECK_EVERY;
        }
    }

    /// Keeps the clock under comparison with its peers'.
    pub(super) fn check_clock(&mut self, step: &mut Step) {
        if self.clock_guard.has_jumped(step.now) {
            self.ask_clocks(step);
        }
        let members = self.held.view().members().len();
        let Judgement { alarm: off, borne_out } =
            self.clock_guard.judgement(step.now, members, |peer| self.liveness.status(peer));
        let told = |off: Option<Comparison>| off.map(|off| off.refuses);
        if told(off) != told(self.clock_off) {
            let now = off.unwrap_or(Comparison { offset_ms: 0, refuses: false });
            step.effects.events.push(Event::ClockOff { offset_ms: now.offset_ms, refuses: now.refuses });
        }
        self.replica.trust_clock(borne_out);
        self.clock_off = off;
    }

    /// Asks all others what their clocks read. If all jumped together, what was heard of them before says that this one is off.
    pub(super) fn ask_clocks(&self, step: &mut Step) {
        let request_id = RequestId {
            requester: Requester::Coordinator,
            operation: self.config.shard_id.first_operation(0),
            round: 0,
        };
        let others = self.held.view().members().map(|known| known.member.id).filter(|&id| id != self.config.node);
        for other in others {
            self.send(step, other, Message::ClocksRequest(request_id));
        }
    }
}
