//! Surveys: how much nodes hold of partitions, as they report it to an administrator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Control, ControlEffects, Inquiry, InquiryId, PENDING_MAX};
use crate::cluster::liveness::Status;
use crate::cluster::sizes::NodeSizes;
use crate::message::client::ClientId;
use crate::message::gossip::INQUIRY_PARTITIONS_MAX;
use crate::ring::PartitionId;
use crate::value::dot::NodeId;
use crate::value::time::{Instant, Now};

/// The nodes and partitions to survey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// The partitions, by node.
    pub of: BTreeMap<NodeId, BTreeSet<PartitionId>>,
    /// How long the administrator waits.
    pub timeout: Duration,
}

/// The responses, by node.
pub type Surveyed = BTreeMap<NodeId, NodeSizes>;

/// A survey under way.
#[derive(Debug)]
pub(super) struct Surveying {
    client: ClientId,
    /// The unanswered requests, each with its node.
    open: BTreeMap<InquiryId, NodeId>,
    found: Surveyed,
    until: Instant,
}

impl Surveying {
    /// When it ends at the latest.
    pub(super) const fn wake_at(&self) -> Instant {
        self.until
    }

    /// The responses of nodes that have responded to all their inquiries.
    fn end(mut self) -> (ClientId, Surveyed) {
        for silent in self.open.values() {
            self.found.remove(silent);
        }
        (self.client, self.found)
    }
}

impl Control {
    /// Begins a survey of the nodes that seem reachable.
    pub(super) fn survey(&mut self, now: Now, client: ClientId, survey: Survey, effects: &mut ControlEffects) {
        if self.surveys.len() >= PENDING_MAX {
            return effects.surveyed.push((client, Surveyed::new()));
        }
        let is_reachable = |node: NodeId| {
            let is_member = self.view.member(node).is_some();
            is_member && (node == self.config.node || self.liveness().status(node) != Status::Down)
        };
        let reachable: Vec<_> = survey.of.into_iter().filter(|&(node, _)| is_reachable(node)).collect();
        let mut open = BTreeMap::new();
        for (node, partitions) in reachable {
            let partitions: Vec<PartitionId> = partitions.into_iter().collect();
            // A node that gets an inquiry about no partitions still reports what it must hand over.
            let parts =
                if partitions.is_empty() { vec![&[][..]] } else { partitions.chunks(INQUIRY_PARTITIONS_MAX).collect() };
            for part in parts {
                let id = self.inquiries.next_id();
                open.insert(id, node);
                self.send_inquiry(now, node, Inquiry { id, partitions: part.to_vec() }, effects);
            }
        }
        self.surveys.push(Surveying { client, open, found: Surveyed::new(), until: now.instant + survey.timeout });
    }

    /// Takes in a node's report.
    pub(super) fn on_report(&mut self, from: NodeId, id: InquiryId, sizes: NodeSizes) {
        let Some(survey) = self.surveys.iter_mut().find(|survey| survey.open.get(&id) == Some(&from)) else { return };
        survey.open.remove(&id);
        survey.found.entry(from).or_default().merge(sizes);
    }

    /// Replies to surveys that are complete, and to those whose time is up.
    pub(super) fn end_surveys(&mut self, now: Now, effects: &mut ControlEffects) {
        let ended = self.surveys.extract_if(.., |survey| survey.open.is_empty() || now.instant >= survey.until);
        effects.surveyed.extend(ended.map(Surveying::end));
    }
}
