//! Nodes that reported a full disk. A write for which too few homes have room is refused before any of them has stored
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::{Failure, ReplicaResponse};
use crate::value::dot::NodeId;
use crate::value::time::Instant;

/// How long a report of a full disk is believed. Then the node is tried again.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// The members that have lately reported a full disk.
#[derive(Debug, Default)]
pub struct FullDisks(BTreeMap<NodeId, Instant>);

impl FullDisks {
    /// Takes in a replica's response, which may show that its disk is full or has room again.
    pub fn on_response(&mut self, from: NodeId, response: &ReplicaResponse, now: Instant) {
        match response {
            ReplicaResponse::Failed(Failure::DiskFull) => self.note(from, now),
            ReplicaResponse::Stored => {
                self.0.remove(&from);
            }
            ReplicaResponse::State { .. }
            | ReplicaResponse::Digest { .. }
            | ReplicaResponse::Holds { .. }
            | ReplicaResponse::Failed(_) => {}
        }
    }

    /// Records that the disk of `node` is full.
    pub fn note(&mut self, node: NodeId, now: Instant) {
        self.0.insert(node, now + BELIEVED_FOR);
    }

    /// Whether, because of full disks alone, fewer than `needed` of `homes` can store a write. `me` counts as having
    /// room: it finds out when it tries.
    pub fn leave_too_few(&self, homes: &[NodeId], needed: usize, me: Option<NodeId>, now: Instant) -> bool {
        let is_full = |node: &&NodeId| Some(**node) != me && self.0.get(node).is_some_and(|&until| now < until);
        let full = homes.iter().filter(is_full).count();
        full > 0 && homes.len() - full < needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_remembered_until_it_stores_a_write_or_a_second_has_passed() {
        let homes = [1, 2, 3].map(NodeId::new);
        let (now, later) = (Instant::default(), Instant::default() + BELIEVED_FOR);
        let mut full = FullDisks::default();
        full.on_response(homes[0], &ReplicaResponse::Failed(Failure::DiskFull), now);
        assert!(!full.leave_too_few(&homes, 2, None, now), "two are left");
        assert!(full.leave_too_few(&homes, 3, None, now));
        assert!(!full.leave_too_few(&homes, 3, Some(homes[0]), now), "it may try itself");
        assert!(!full.leave_too_few(&homes, 3, None, later));
        assert!(!full.leave_too_few(&homes, 4, None, later), "there are too few anyway, and no disk is to blame");
        full.on_response(homes[0], &ReplicaResponse::Stored, now);
        assert!(!full.leave_too_few(&homes, 3, None, now));
    }
}
