//! Questions whether a node holds anything in a bucket.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Control, ControlEffects, Notice};
use crate::dot::{Life, NodeId};
use crate::time::Now;

/// How many questions may wait for the shards at once. One more is dropped: who asked asks again.
const INQUIRIES_MAX: usize = 256;

/// Which question, of those that one node asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct InquiryId(pub u64);

/// A question whether a node holds anything in a bucket, be it a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inquiry {
    /// Which question it is.
    pub id: InquiryId,
    /// The bucket.
    pub bucket: Bytes,
}

/// The questions that wait for this node's shards.
#[derive(Debug)]
pub(super) struct Inquiries {
    begun: u64,
    /// For each, who asked, and under which number.
    asked: BTreeMap<InquiryId, (NodeId, InquiryId)>,
}

impl Inquiries {
    /// Those of one boot. They are numbered through all boots, so that no late answer is taken for one to a later question.
    pub(super) const fn new(life: Life, boot: u32) -> Self {
        Self { begun: life.mark_of_boot(boot) << 40, asked: BTreeMap::new() }
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
            effects.inquiries.push(Inquiry { id, bucket: inquiry.bucket });
        }
    }
}

impl Control {
    /// The shards have answered. If they cannot say, the asker hears nothing, and does not take that for a no.
    pub(super) fn holds(&mut self, now: Now, id: InquiryId, holds: Option<bool>, effects: &mut ControlEffects) {
        match self.inquiries.asked.remove(&id).zip(holds) {
            Some(((asker, theirs), holds)) if asker == self.config.node => {
                self.answered(now, asker, theirs, holds, effects);
            }
            Some(((asker, theirs), holds)) => self.send(now, asker, Notice::Holds(theirs, holds), effects),
            None => {}
        }
    }
}
