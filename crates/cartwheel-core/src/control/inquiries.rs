//! Questions that nodes ask each other's shards, by way of the controls.

use std::collections::BTreeMap;

use super::{Control, ControlEffects, Notice};
use crate::cluster::sizes::NodeSizes;
use crate::message::gossip::{Inquiry, InquiryId};
use crate::value::dot::{Incarnation, NodeId};
use crate::value::time::Now;

/// How many questions may wait for the shards at once. One more is dropped: who asked asks again, or does without.
const INQUIRIES_MAX: usize = 256;

/// The questions that wait for this node's shards.
#[derive(Debug)]
pub(super) struct Inquiries {
    begun: u64,
    /// For each, who asked, and under which number.
    asked: BTreeMap<InquiryId, (NodeId, InquiryId)>,
}

impl Inquiries {
    /// Those of one boot. They are numbered through all boots, so that no late answer is taken for one to a later question.
    pub(super) const fn new(incarnation: Incarnation, boot: u32) -> Self {
        Self { begun: incarnation.mark_of_boot(boot) << 40, asked: BTreeMap::new() }
    }

    /// A number for a question.
    pub(super) const fn next_id(&mut self) -> InquiryId {
        self.begun += 1;
        InquiryId(self.begun)
    }

    /// Passes a node's question on to the shards, under a number of this node's own.
    pub(super) fn asked(&mut self, by: NodeId, inquiry: Inquiry, effects: &mut ControlEffects) {
        if self.asked.len() < INQUIRIES_MAX {
            let id = self.next_id();
            self.asked.insert(id, (by, inquiry.id));
            effects.inquiries.push(Inquiry { id, ..inquiry });
        }
    }
}

impl Control {
    /// Asks a node, which may be this one.
    pub(super) fn ask(&mut self, now: Now, node: NodeId, inquiry: Inquiry, effects: &mut ControlEffects) {
        if node == self.config.node {
            self.inquiries.asked(node, inquiry, effects);
        } else {
            self.send(now, node, Notice::Inquiry(inquiry), effects);
        }
    }

    /// The shards have answered. If they cannot say, the asker hears nothing, and does not take that for a no.
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
