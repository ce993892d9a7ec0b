//! Forwarded writes that this node has refused for good.

use std::collections::{BTreeMap, VecDeque};

use super::inputs::BUDGET_MAX;
use crate::message::RequestId;
use crate::message::client::Refusal;
use crate::value::dot::NodeId;
use crate::value::time::Instant;

/// How many refusals are remembered. With a longest reason each, they take a few megabytes.
const REFUSALS_MAX: usize = 16_384;

/// This boot's final refusals of forwarded writes: each says that nothing was written and nothing will be.
///
/// A forward that is delivered again, by its sender or by the network, is refused again: by then the key may have room for it, but the
/// client has its refusal.
#[derive(Debug, Default)]
pub(super) struct RefusedForwards {
    refusals: BTreeMap<(NodeId, RequestId), Refusal>,
    /// The same in the order in which they were refused, and when each expires.
    order: VecDeque<(Instant, NodeId, RequestId)>,
}

impl RefusedForwards {
    /// Records the refusal of a forward of `peer`.
    pub(super) fn refused(&mut self, now: Instant, peer: NodeId, request_id: RequestId, refusal: &Refusal) {
        self.drop_expired(now);
        if !is_final(refusal) || self.refusals.insert((peer, request_id), refusal.clone()).is_some() {
            return;
        }
        self.order.push_back((now + BUDGET_MAX, peer, request_id));
        if self.order.len() > REFUSALS_MAX {
            self.drop_oldest();
        }
    }

    /// The refusal of a forward that `peer` repeats, if this node has refused it.
    pub(super) fn refusal(&self, peer: NodeId, request_id: RequestId) -> Option<&Refusal> {
        self.refusals.get(&(peer, request_id))
    }

    /// Drops refusals that no client waits for.
    fn drop_expired(&mut self, now: Instant) {
        while self.order.front().is_some_and(|&(until, ..)| until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, peer, request_id)) = self.order.pop_front() {
            self.refusals.remove(&(peer, request_id));
        }
    }
}

/// Whether the refusal says that the write is not and will not be stored.
fn is_final(refusal: &Refusal) -> bool {
    !matches!(refusal, Refusal::Unavailable(_) | Refusal::Overloaded)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::Requester;

    fn request(operation: usize) -> RequestId {
        RequestId { requester: Requester::Coordinator, operation: operation as u64, round: 1 }
    }

    #[test]
    fn only_what_is_final_is_remembered_and_no_longer_than_a_client_waits() {
        let (peer, mut refused) = (NodeId::new(1), RefusedForwards::default());
        refused.refused(Instant(0), peer, request(1), &Refusal::TooManySiblings(4));
        refused.refused(Instant(0), peer, request(2), &Refusal::Overloaded);
        assert_eq!(refused.refusal(peer, request(1)), Some(&Refusal::TooManySiblings(4)));
        assert_eq!(refused.refusal(peer, request(2)), None);
        assert_eq!(refused.refusal(NodeId::new(2), request(1)), None, "another node's request");
        let later = Instant(0) + BUDGET_MAX;
        refused.refused(later, peer, request(3), &Refusal::DiskFull);
        assert_eq!(refused.refusal(peer, request(1)), None);
        assert_eq!(refused.refusal(peer, request(3)), Some(&Refusal::DiskFull));
        assert_eq!(refused.order.len(), refused.refusals.len());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let (peer, mut refused) = (NodeId::new(1), RefusedForwards::default());
        let now = Instant(0) + Duration::from_secs(1);
        (0..=REFUSALS_MAX).for_each(|number| refused.refused(now, peer, request(number), &Refusal::DiskFull));
        assert_eq!(refused.refusals.len(), REFUSALS_MAX);
        assert_eq!(refused.refusal(peer, request(0)), None);
        assert!(refused.refusal(peer, request(REFUSALS_MAX)).is_some());
    }
}
