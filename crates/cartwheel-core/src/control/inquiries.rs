//! Inquiries: requests between the shards of different nodes, passed on by their controls.

use std::collections::BTreeMap;

use super::{Control, ControlEffects, Notice};
use crate::cluster::sizes::NodeSizes;
use crate::message::gossip::{Inquiry, InquiryId};
use crate::value::dot::{Incarnation, NodeId};
use crate::value::time::Now;

/// How many inquiries may wait for the shards at once. Further ones are dropped; the asking node repeats them or goes
/// without.
const INQUIRIES_MAX: usize = 256;

/// The inquiries that wait for this node's shards.
#[derive(Debug)]
pub(super) struct Inquiries {
    begun: u64,
    /// For each, the node that asked, and its own id for it.
    asked: BTreeMap<InquiryId, (NodeId, InquiryId)>,
}

impl Inquiries {
    /// Inquiries of one boot. Ids never repeat across boots, so a late answer is not taken for an answer to a later
    /// inquiry.
    pub(super) const fn new(incarnation: Incarnation, boot: u32) -> Self {
        Self { begun: incarnation.mark_of_boot(boot) << 40, asked: BTreeMap::new() }
    }

    pub(super) const fn next_id(&mut self) -> InquiryId {
        self.begun += 1;
        InquiryId(self.begun)
    }

    /// Passes a node's inquiry on to the shards, under an id of this node's own.
    pub(super) fn asked(&mut self, by: NodeId, inquiry: Inquiry, effects: &mut ControlEffects) {
        if self.asked.len() < INQUIRIES_MAX {
            let id = self.next_id();
            self.asked.insert(id, (by, inquiry.id));
            effects.inquiries.push(Inquiry { id, ..inquiry });
        }
    }
}

impl Control {
    /// Sends an inquiry to a node, which may be this one.
    pub(super) fn ask(&mut self, now: Now, node: NodeId, inquiry: Inquiry, effects: &mut ControlEffects) {
        if node == self.config.node {
            self.inquiries.asked(node, inquiry, effects);
        } else {
            self.send(now, node, Notice::Inquiry(inquiry), effects);
        }
    }

    /// The shards have answered. If they cannot, no report is sent, and the asking node does not take that for a
    /// negative answer.
    pub(super) fn shards_report(
        &mut self,
        now: Now,
        id: InquiryId,
        report: Option<NodeSizes>,
        effects: &mut ControlEffects,
    ) {
        match self.inquiries.asked.remove(&id).zip(report) {
            Some(((asker, theirs), report)) if asker == self.config.node => self.surveyed(asker, theirs, report),
            Some(((asker, theirs), report)) => self.send(now, asker, Notice::Report(theirs, report), effects),
            None => {}
        }
    }
}
