//! The nodes' verdicts on each other, and their checks.

use cartwheel_core::cluster::liveness::{Liveness, Status};
use cartwheel_core::control::Control;

use super::World;
use crate::failure::Failure;
use crate::trace::TraceKind;

/// How long a dead node may seem alive: a response may be in flight for long, and nodes are probed in turn.
const DETECTED_WITHIN_US: u64 = 10_000_000;
const DETECTED_WITHIN_PER_NODE_US: u64 = 2_000_000;

impl World {
    /// How long a dead node may seem alive to another, in microseconds.
    pub fn detected_within_us(&self) -> u64 {
        DETECTED_WITHIN_US + self.machines.len() as u64 * DETECTED_WITHIN_PER_NODE_US
    }

    pub(super) fn note_liveness(&mut self, index: usize, liveness: &Liveness) {
        let said: Vec<u8> = liveness.iter().map(|(_, status)| status.status as u8).collect();
        self.note(TraceKind::Report, &[&[index as u8], &said[..]].concat(), |cluster| {
            let not_alive = liveness.iter().filter(|(_, status)| status.status != Status::Alive);
            let said: Vec<String> =
                not_alive.map(|(node, at)| format!("{} {}: {}", cluster.name_of(node), at.status, at.why)).collect();
            format!(
                "{} sees {}",
                cluster.name(index),
                if said.is_empty() { "all alive".to_owned() } else { said.join("; ") }
            )
        });
    }

    fn status(&self, index: usize, of: usize) -> Option<Status> {
        let control = self.machine_controls[index].control.as_ref();
        control.map(Control::liveness).map(|liveness| liveness.status(self.cluster.id(of)))
    }

    /// Checks that a node that has been down for long does not seem alive to a node that was up all the time.
    pub(super) fn judge_death(&mut self, index: usize) {
        let (machine, bound_us) = (&self.machines[index], self.detected_within_us());
        // An incarnation counts as alive from the moment it is known until it has started.
        if machine.start().boot == 0 || machine.is_up() || self.now_us < machine.down_since_us + bound_us {
            return;
        }
        let has_run = |at: usize| {
            let machine = &self.machines[at];
            machine.is_up() && !machine.is_paused() && self.now_us >= machine.running_since_us() + bound_us
        };
        let blind = (0..self.machines.len()).find(|&at| has_run(at) && self.status(at, index) == Some(Status::Alive));
        if let Some(at) = blind {
            let (at, dead) = (self.cluster.name(at), self.cluster.name(index));
            let message = format!("{at} sees {dead} alive, which has been down for more than {bound_us} us");
            self.fail("a dead node is detected", None, message);
        }
    }

    /// Checks that every node sees every other as alive, as it must some time after all faults have ended.
    pub fn judge_liveness(&self) -> Option<Failure> {
        let nodes = self.members();
        let pairs = nodes.iter().flat_map(|&at| nodes.iter().map(move |&of| (at, of)));
        let wrong: Vec<String> = pairs
            .filter(|&(at, of)| at != of && self.status(at, of).is_some_and(|status| status != Status::Alive))
            .map(|(at, of)| {
                let control = self.machine_controls[at].control.as_ref();
                let status = control.and_then(|control| control.liveness().get(self.cluster.id(of)));
                format!("{} of {}: {status:?}", self.cluster.name(at), self.cluster.name(of))
            })
            .collect();
        let check = "in a healed cluster all nodes see each other as alive";
        (!wrong.is_empty()).then(|| Failure { check, key: None, at_us: self.now_us, message: wrong.join("; ") })
    }
}
