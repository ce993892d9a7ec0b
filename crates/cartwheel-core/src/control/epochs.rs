//! Epochs: when the cluster enters the next one ([`crate::value::epoch`]).
//!
//! Every member reports its epoch, the epoch that it has finished, and a digest of its member list. Once a member knows
//! that all members have finished its epoch, each with the same member list, it saves the next epoch and enters it. So
//! no two members are ever more than one epoch apart, and no member that any of them knows of is left behind.
//!
//! **Second-hand reports count.** That a member has finished an epoch with a given member list never becomes untrue. So
//! each member also passes on which others have. In a small cluster each change is sent to all at once; in a large one,
//! each member sends its marks to a few every second, and they spread by gossip.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::member_list::MemberList;
use super::{Control, ControlEffects, FANOUT, Notice};
use crate::cluster::membership::View;
use crate::message::gossip::{EpochNotice, MembersDigest};
use crate::store::command::WriteFailed;
use crate::value::dot::{Incarnation, NodeId};
use crate::value::epoch::Epoch;
use crate::value::hlc::WallMs;
use crate::value::time::{Instant, Now};

/// How long a node waits before it saves an epoch again after a failure.
const SAVE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often the status is updated in a large cluster.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The state of the current epoch, as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// When this node entered it, or started, if that was later.
    pub since: WallMs,
    /// The members that have not finished it, as far as this node knows. While there is any, no tombstone of the last
    /// epochs is collected anywhere.
    pub waits_for: BTreeSet<NodeId>,
}

/// The last report of one member about itself.
#[derive(Clone, Copy, Debug)]
struct PeerEpoch {
    incarnation: Incarnation,
    epoch: Epoch,
    finished: Epoch,
    members: MembersDigest,
}

/// The epochs, as one node knows them.
#[derive(Debug)]
pub(super) struct Epochs {
    /// The saved epoch.
    epoch: Epoch,
    /// An epoch that the cluster had reached when this incarnation was created.
    floor: Epoch,
    saving: Option<Epoch>,
    next_save: Instant,
    /// The epoch that each of the node's shards has finished.
    shards: Vec<Epoch>,
    reports: BTreeMap<NodeId, PeerEpoch>,
    /// The view that `member_list` was made of.
    of: Option<Arc<View>>,
    member_list: MemberList,
    /// For each member of the list, the epoch that it is known to have finished with this list.
    finished: Vec<Epoch>,
    /// How many members of the list have not finished the epoch, as far as is known.
    behind: usize,
    /// Whether `behind` must be counted again.
    has_changed: bool,
    /// Whether the status must be updated.
    is_status_stale: bool,
    /// In a large cluster, the status is not updated before this time unless the epoch changes: marks arrive one by
    /// one.
    next_status: Instant,
    /// The state of this node that it last sent at once to others: its epoch, the epoch it has finished, its member
    /// list.
    last_sent: (Epoch, Epoch, MembersDigest),
    /// The position of the next peer to send to, while this node must be heard by all.
    next_peer: usize,
    /// Whether this node drains, which its reports say too.
    drains: bool,
    status: EpochStatus,
}

impl Epochs {
    pub(super) fn new(epoch: Epoch, floor: Epoch, shards: u32) -> Self {
        Self {
            epoch,
            floor,
            saving: None,
            next_save: Instant::default(),
            shards: vec![Epoch::UNKNOWN; shards as usize],
            reports: BTreeMap::new(),
            of: None,
            member_list: MemberList::default(),
            finished: Vec::new(),
            behind: 0,
            has_changed: true,
            is_status_stale: true,
            next_status: Instant::default(),
            last_sent: (Epoch::UNKNOWN, Epoch::UNKNOWN, MembersDigest::default()),
            next_peer: 0,
            drains: false,
            status: EpochStatus::default(),
        }
    }

    /// A shard has finished an epoch.
    pub(super) fn finished(&mut self, shard_id: u32, epoch: Epoch) {
        if let Some(finished) = self.shards.get_mut(shard_id as usize) {
            *finished = epoch.max(*finished);
            self.has_changed = true;
        }
    }

    /// The epoch that this node has finished: the one that all its shards have, and at least the one before its current
    /// epoch.
    fn own(&self) -> Epoch {
        if self.epoch == Epoch::UNKNOWN {
            return self.floor;
        }
        let shards = self.shards.iter().copied().min().unwrap_or_default();
        shards.max(before(self.epoch))
    }

    /// Takes in a member's report.
    pub(super) fn on_notice(&mut self, from: NodeId, incarnation: Incarnation, notice: &EpochNotice) {
        let EpochNotice { epoch, finished, members, .. } = *notice;
        let is_old = |report: &PeerEpoch| report.incarnation == incarnation && report.epoch > epoch;
        if self.reports.get(&from).is_none_or(|report| !is_old(report)) {
            self.reports.insert(from, PeerEpoch { incarnation, epoch, finished, members });
        }
        // A node that does not know the epoch may still begin in one that others have finished, so it has finished
        // none.
        if members != self.member_list.digest || epoch == Epoch::UNKNOWN {
            return;
        }
        if let Some(position) = self.member_list.position(from, incarnation) {
            self.mark(position, finished);
        }
        // Members are never further apart than one epoch, so such a report is wrong.
        if epoch.0.abs_diff(self.epoch.0) > 1 {
            return;
        }
        for position in 0..self.finished.len() {
            if notice.done.has(position) {
                self.mark(position, epoch);
            } else if notice.done_before.has(position) {
                self.mark(position, before(epoch));
            }
        }
    }

    /// Marks that the member at this position has finished an epoch.
    fn mark(&mut self, position: usize, epoch: Epoch) {
        if let Some(finished) = self.finished.get_mut(position)
            && *finished < epoch
        {
            *finished = epoch;
            self.has_changed = true;
        }
    }

    /// Adopts the members of a view, and what this node itself has finished.
    fn adopt_view(&mut self, me: NodeId, incarnation: Incarnation, view: &Arc<View>) {
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, view)) {
            self.of = Some(view.clone());
            let member_list = MemberList::of(view);
            if member_list.digest != self.member_list.digest {
                self.finished = member_list
                    .members()
                    .iter()
                    .map(|&(node, incarnation)| self.own_report(node, incarnation, &member_list))
                    .collect();
                self.member_list = member_list;
                self.has_changed = true;
            }
        }
        if self.has_changed
            && self.epoch != Epoch::UNKNOWN
            && let Some(position) = self.member_list.position(me, incarnation)
        {
            self.mark(position, self.own());
        }
        if std::mem::take(&mut self.has_changed) {
            self.behind = self.finished.iter().filter(|&&finished| finished < self.epoch).count();
            self.is_status_stale = true;
        }
    }

    /// The epoch that a member has itself reported as finished with this member list.
    fn own_report(&self, node: NodeId, incarnation: Incarnation, member_list: &MemberList) -> Epoch {
        let report = self
            .reports
            .get(&node)
            .filter(|report| report.incarnation == incarnation && report.members == member_list.digest);
        report.filter(|report| report.epoch != Epoch::UNKNOWN).map_or(Epoch::UNKNOWN, |report| report.finished)
    }

    fn notice(&self) -> EpochNotice {
        let has_finished = |epoch: Epoch| self.finished.iter().map(move |&finished| finished >= epoch);
        let knows = self.epoch != Epoch::UNKNOWN;
        EpochNotice {
            epoch: self.epoch,
            finished: self.own(),
            members: self.member_list.digest,
            done: has_finished(self.epoch).filter(|_| knows).collect(),
            done_before: has_finished(before(self.epoch)).filter(|_| knows).collect(),
            drains: self.drains,
        }
    }

    /// The epoch to enter, if all have finished the current one.
    fn next(&self, me: NodeId) -> Option<Epoch> {
        if self.epoch == Epoch::UNKNOWN {
            return self.first(me);
        }
        (self.behind == 0 && self.own() >= self.epoch).then(|| self.epoch.next())
    }

    /// The members that have not finished the epoch, as far as is known.
    fn waits_for(&self, me: NodeId) -> BTreeSet<NodeId> {
        let members = self.member_list.members().iter().zip(&self.finished);
        let behind = members.filter(|&(_, &finished)| finished < self.epoch).map(|(&(node, _), _)| node);
        behind.chain((self.own() < self.epoch).then_some(me)).collect()
    }

    /// The epoch in which an incarnation begins that does not know any. It has done nothing yet, so any epoch that a
    /// member is in will do. If all members are new and none knows an epoch, it is one that none of them had reached
    /// before.
    fn first(&self, me: NodeId) -> Option<Epoch> {
        let others = self.member_list.members().iter().filter(|&&(node, _)| node != me);
        // A member with the same member list knows this incarnation and waits for it. Any other report may be from any
        // time: messages may be long under way.
        let report = |node: NodeId, incarnation: Incarnation| {
            self.reports
                .get(&node)
                .filter(|report| report.incarnation == incarnation && report.members == self.member_list.digest)
        };
        let reports: Vec<Option<&PeerEpoch>> = others.map(|&(node, incarnation)| report(node, incarnation)).collect();
        let known = reports.iter().flatten().map(|report| report.epoch).filter(|&epoch| epoch > Epoch::UNKNOWN).max();
        let floors: Option<Vec<Epoch>> = reports.iter().map(|report| Some((*report)?.finished)).collect();
        let reached = floors.map(|floors| floors.into_iter().chain([self.floor]).max().unwrap_or_default());
        known.or_else(|| Some(reached?.next().next()))
    }
}

const fn before(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_sub(1))
}

impl Control {
    /// A shard has finished an epoch.
    pub(super) fn finished(&mut self, shard_id: u32, epoch: Epoch) {
        self.epochs.finished(shard_id, epoch);
    }

    /// The saved epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epochs.epoch
    }

    /// The state of the current epoch, as this node sees it.
    pub const fn epoch_status(&self) -> &EpochStatus {
        &self.epochs.status
    }

    /// Gives the epochs the members of the view.
    pub(super) fn adopt_members(&mut self) {
        self.epochs.adopt_view(self.config.node, self.config.incarnation, &self.view);
    }

    /// Enters the next epoch if all members have finished this one, and sends changes to the others.
    pub(super) fn turn_epoch(&mut self, now: Now, effects: &mut ControlEffects) {
        self.adopt_members();
        if self.epochs.saving.is_none() && now.instant >= self.epochs.next_save {
            self.epochs.saving = self.epochs.next(self.config.node);
            effects.save_epoch = self.epochs.saving;
        }
        let own = (self.epochs.epoch, self.epochs.own(), self.epochs.member_list.digest);
        if self.epochs.last_sent != own {
            self.epochs.last_sent = own;
            let peers = self.peers_to_notify();
            self.send_epoch(now, &peers, effects);
        }
        self.update_epoch_status(now, effects);
    }

    /// Repeats the report to `peer` or to a few others, as an earlier one may have been lost.
    pub(super) fn resend_epoch(&mut self, now: Now, peer: NodeId, effects: &mut ControlEffects) {
        let peers = if self.is_small() {
            vec![peer]
        } else if self.epochs.epoch == Epoch::UNKNOWN {
            // If all incarnations are new, each needs the report of every other.
            let next = self.epochs.next_peer;
            self.epochs.next_peer = next.wrapping_add(FANOUT);
            (0..FANOUT).map(|at| self.others[next.wrapping_add(at) % self.others.len()]).collect()
        } else {
            self.some_others()
        };
        self.send_epoch(now, &peers, effects);
    }

    fn send_epoch(&self, now: Now, to: &[NodeId], effects: &mut ControlEffects) {
        let notice = self.epochs.notice();
        for &peer in to {
            self.send(now, peer, Notice::Epoch(notice.clone()), effects);
        }
    }

    /// Drains or no longer drains, and tells all others at once. Its next reports repeat it.
    pub(super) fn drain(&mut self, now: Now, drains: bool, effects: &mut ControlEffects) {
        if std::mem::replace(&mut self.epochs.drains, drains) != drains {
            self.adopt_members();
            self.send_epoch(now, &self.others, effects);
        }
    }

    /// [`ControlEffects::save_epoch`] has ended.
    pub(super) fn epoch_saved(&mut self, now: Now, result: Result<(), WriteFailed>, effects: &mut ControlEffects) {
        let Some(saved) = self.epochs.saving.take() else { return };
        match result {
            Ok(()) => {
                self.epochs.epoch = saved;
                self.epochs.has_changed = true;
                effects.epoch = Some(saved);
            }
            Err(_) => self.epochs.next_save = now.instant + SAVE_RETRY_AFTER,
        }
    }

    fn update_epoch_status(&mut self, now: Now, effects: &mut ControlEffects) {
        let (status, epoch) = (&self.epochs.status, self.epochs.epoch);
        let is_new = status.epoch != epoch || status.since == WallMs::default();
        let may_wait = !is_new && !self.is_small() && now.instant < self.epochs.next_status;
        if !self.epochs.is_status_stale || may_wait {
            return;
        }
        self.epochs.is_status_stale = false;
        self.epochs.next_status = now.instant + STATUS_EVERY;
        let waits_for = self.epochs.waits_for(self.config.node);
        let status = &mut self.epochs.status;
        if is_new || status.waits_for != waits_for {
            let since = if is_new { now.wall } else { status.since };
            *status = EpochStatus { epoch, since, waits_for };
            effects.epoch_status = Some(status.clone());
        }
    }
}
