//! Inquiries: requests between the shards of different nodes, passed on by their controls.

use std::collections::BTreeMap;

use super::{Control, ControlEffects, Notice};
use crate::cluster::sizes::NodeSizes;
use crate::message::gossip::{Inquiry, InquiryId};
use crate::value::dot::{Incarnation, NodeId};
use crate::value::time::Now;

/// How many inquiries may wait for the shards at once. Further ones are dropped; the requesting node repeats
/// them or does without.
const INQUIRIES_MAX: usize = 256;

/// The inquiries that wait for this node's shards.
#[derive(Debug)]
pub(super) struct Inquiries {
    begun: u64,
    /// For each, the requesting node, and that node's id for it.
    relayed: BTreeMap<InquiryId, (NodeId, InquiryId)>,
}

impl Inquiries {
    /// Inquiries of one boot. Ids never repeat across boots, so a late response is not taken for a response to a later
    /// inquiry.
    pub(super) const fn new(incarnation: Incarnation, boot: u32) -> Self {
        Self { begun: incarnation.mark_of_boot(boot) << 40, relayed: BTreeMap::new() }
    }

    pub(super) const fn next_id(&mut self) -> InquiryId {
        self.begun += 1;
        InquiryId(self.begun)
    }

    /// Passes a node's inquiry on to the shards, under an id of this node's own.
    pub(super) fn on_inquiry(&mut self, by: NodeId, inquiry: Inquiry, effects: &mut ControlEffects) {
        if self.relayed.len() < INQUIRIES_MAX {
            let id = self.next_id();
            self.relayed.insert(id, (by, inquiry.id));
            effects.inquiries.push(Inquiry { id, ..inquiry });
        }
    }
}

impl Control {
    /// Sends an inquiry to a node, which may be this one.
    pub(super) fn send_inquiry(&mut self, now: Now, node: NodeId, inquiry: Inquiry, effects: &mut ControlEffects) {
        if node == self.config.node {
            self.inquiries.on_inquiry(node, inquiry, effects);
        } else {
            self.send(now, node, Notice::Inquiry(inquiry), effects);
        }
    }

    /// Passes the shards' report to the requesting node. If they have none, no report is sent, and the requesting node
    /// does not take that for a negative response.
    pub(super) fn shards_report(
        &mut self,
        now: Now,
        id: InquiryId,
        report: Option<NodeSizes>,
        effects: &mut ControlEffects,
    ) {
        match self.inquiries.relayed.remove(&id).zip(report) {
            Some(((requester, theirs), report)) if requester == self.config.node => {
                self.on_report(requester, theirs, report)
            }
            Some(((requester, theirs), report)) => self.send(now, requester, Notice::Report(theirs, report), effects),
            None => {}
        }
    }
}
