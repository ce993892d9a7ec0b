//! Checks of the node's own clock and timestamps.

use std::time::Duration;

use super::{Node, Step};
use crate::event::Event;
use crate::message::{Message, RequestId, Requester};
use crate::node::clock_guard::{ALARM_MS, Comparison, Judgement};

/// How often timestamps are compared with the wall clock.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(5);

impl Node {
    /// Reports that writes got timestamps far ahead of the wall clock, and later that they no longer do.
    pub(super) fn check_timestamps(&mut self, step: &mut Step) {
        let ahead_ms = self.replica.ahead_ms();
        let is_ahead = ahead_ms > ALARM_MS;
        let has_ended = step.now.instant >= self.next_check;
        if is_ahead != self.timestamps_ahead && (is_ahead || has_ended) {
            self.timestamps_ahead = is_ahead;
            step.effects.events.push(Event::TimestampsAhead { ahead_ms: if is_ahead { ahead_ms } else { 0 } });
        }
        if has_ended {
            self.replica.reset_ahead();
            self.next_check = step.now.instant + CHECK_EVERY;
        }
    }

    /// Compares the wall clock with the peers', and reports a change of the result.
    pub(super) fn check_clock(&mut self, step: &mut Step) {
        if self.clock_guard.has_jumped(step.now) {
            self.request_clocks(step);
        }
        let members = self.held.view().members().len();
        let Judgement { alarm: off, borne_out } =
            self.clock_guard.judgement(step.now, members, |peer| self.liveness.status(peer));
        let refuses = |off: Option<Comparison>| off.map(|off| off.refuses);
        if refuses(off) != refuses(self.clock_off) {
            let now = off.unwrap_or(Comparison { offset_ms: 0, refuses: false });
            step.effects.events.push(Event::ClockOff { offset_ms: now.offset_ms, refuses: now.refuses });
        }
        self.replica.trust_clock(borne_out);
        self.clock_off = off;
    }

    /// Asks every peer for its clock: if all clocks jumped together, the readings from before would make this one seem off.
    pub(super) fn request_clocks(&self, step: &mut Step) {
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
