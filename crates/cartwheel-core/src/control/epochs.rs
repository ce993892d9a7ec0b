//! When the cluster enters the next epoch ([`crate::value::epoch`]).
//!
//! Every member says in which epoch it is, which it has finished, and a digest of those whom it knows as members. One that finds that
//! all members that it knows have finished its epoch, each while it knew the same members, saves the next and enters it. So no two
//! members are ever more than one epoch apart, and none is left behind that any of them knows of.
//!
//! **Hearsay is as good as their own word.** That somebody has finished an epoch while it knew just these members never becomes
//! untrue, so each also says of whom it knows that. With few members everyone is told of each change at once; with more, each tells a
//! handful every second, and the marks spread as rumours do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::member_list::MemberList;
use super::{Control, ControlEffects, Notice, TOLD};
use crate::cluster::membership::View;
use crate::message::gossip::{EpochNotice, MembersDigest};
use crate::store::command::WriteFailed;
use crate::value::dot::{Incarnation, NodeId};
use crate::value::epoch::Epoch;
use crate::value::hlc::WallMs;
use crate::value::time::{Instant, Now};

/// How long a node waits before it tries again to save an epoch that it could not.
const SAVE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often it is told anew how far a large cluster is.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// How far this node sees the cluster with its epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochStatus {
    /// The epoch.
    pub epoch: Epoch,
    /// When this node entered it, or started, if that was later.
    pub since: WallMs,
    /// Those who have not finished it, as far as this node knows. While there is any, nothing that was deleted in the last epochs is
    /// forgotten anywhere.
    pub waits_for: BTreeSet<NodeId>,
}

/// What one member has told of itself.
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
    /// The one that is saved.
    epoch: Epoch,
    /// One that the cluster had reached when this incarnation was made.
    floor: Epoch,
    saving: Option<Epoch>,
    next_save: Instant,
    /// What each of the node's shards has finished.
    shards: Vec<Epoch>,
    told: BTreeMap<NodeId, PeerEpoch>,
    /// The members of this view.
    of: Option<Arc<View>>,
    member_list: MemberList,
    /// What each of the roster is known to have finished while it knew this roster.
    finished: Vec<Epoch>,
    /// How many of the roster have not finished the epoch, as far as is known.
    behind: usize,
    /// That may have changed.
    is_news: bool,
    /// It was looked at anew, and nobody was told yet.
    is_untold: bool,
    /// Not before this is it told how far the cluster is, if it is large and the epoch the same: marks come one by one.
    next_status: Instant,
    /// What this node last told of itself when it changed.
    last_told: (Epoch, Epoch, MembersDigest),
    /// With which peer a node goes on that has to be heard by all.
    next_told: usize,
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
            told: BTreeMap::new(),
            of: None,
            member_list: MemberList::default(),
            finished: Vec::new(),
            behind: 0,
            is_news: true,
            is_untold: true,
            next_status: Instant::default(),
            last_told: (Epoch::UNKNOWN, Epoch::UNKNOWN, MembersDigest::default()),
            next_told: 0,
            status: EpochStatus::default(),
        }
    }

    /// A shard has finished an epoch.
    pub(super) fn finished(&mut self, shard_id: u32, epoch: Epoch) {
        if let Some(finished) = self.shards.get_mut(shard_id as usize) {
            *finished = epoch.max(*finished);
            self.is_news = true;
        }
    }

    /// What this node has finished: what all its shards have, and all before the epoch that it is in.
    fn own(&self) -> Epoch {
        if self.epoch == Epoch::UNKNOWN {
            return self.floor;
        }
        let shards = self.shards.iter().copied().min().unwrap_or_default();
        shards.max(before(self.epoch))
    }

    /// Takes in what a member tells.
    pub(super) fn heard(&mut self, from: NodeId, incarnation: Incarnation, notice: &EpochNotice) {
        let EpochNotice { epoch, finished, members, .. } = *notice;
        let is_old = |told: &PeerEpoch| told.incarnation == incarnation && told.epoch > epoch;
        if self.told.get(&from).is_none_or(|told| !is_old(told)) {
            self.told.insert(from, PeerEpoch { incarnation, epoch, finished, members });
        }
        // Who does not know the epoch may yet begin in one that others have finished.
        if members != self.member_list.digest || epoch == Epoch::UNKNOWN {
            return;
        }
        if let Some(place) = self.member_list.place(from, incarnation) {
            self.mark(place, finished);
        }
        // Nobody is further off, so who says otherwise is mistaken.
        if epoch.0.abs_diff(self.epoch.0) > 1 {
            return;
        }
        for place in 0..self.finished.len() {
            if notice.done.has(place) {
                self.mark(place, epoch);
            } else if notice.done_before.has(place) {
                self.mark(place, before(epoch));
            }
        }
    }

    /// The one at this place of the roster has finished an epoch.
    fn mark(&mut self, place: usize, epoch: Epoch) {
        if let Some(finished) = self.finished.get_mut(place)
            && *finished < epoch
        {
            *finished = epoch;
            self.is_news = true;
        }
    }

    /// Goes by the members of a view, and by what this node has finished itself.
    fn go_by(&mut self, me: NodeId, incarnation: Incarnation, view: &Arc<View>) {
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, view)) {
            self.of = Some(view.clone());
            let member_list = MemberList::of(view);
            if member_list.digest != self.member_list.digest {
                self.finished = member_list
                    .members()
                    .iter()
                    .map(|&(node, incarnation)| self.own_word(node, incarnation, &member_list))
                    .collect();
                self.member_list = member_list;
                self.is_news = true;
            }
        }
        if self.is_news
            && self.epoch != Epoch::UNKNOWN
            && let Some(place) = self.member_list.place(me, incarnation)
        {
            self.mark(place, self.own());
        }
        if std::mem::take(&mut self.is_news) {
            self.behind = self.finished.iter().filter(|&&finished| finished < self.epoch).count();
            self.is_untold = true;
        }
    }

    /// What a member has said itself that it has finished while it knew these members.
    fn own_word(&self, node: NodeId, incarnation: Incarnation, member_list: &MemberList) -> Epoch {
        let told =
            self.told.get(&node).filter(|told| told.incarnation == incarnation && told.members == member_list.digest);
        told.filter(|told| told.epoch != Epoch::UNKNOWN).map_or(Epoch::UNKNOWN, |told| told.finished)
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
        }
    }

    /// The epoch that the node is to enter, if it may.
    fn next(&self, me: NodeId) -> Option<Epoch> {
        if self.epoch == Epoch::UNKNOWN {
            return self.first(me);
        }
        (self.behind == 0 && self.own() >= self.epoch).then(|| self.epoch.next())
    }

    /// Who has not finished the epoch, as far as is known.
    fn waits_for(&self, me: NodeId) -> BTreeSet<NodeId> {
        let members = self.member_list.members().iter().zip(&self.finished);
        let behind = members.filter(|&(_, &finished)| finished < self.epoch).map(|(&(node, _), _)| node);
        behind.chain((self.own() < self.epoch).then_some(me)).collect()
    }

    /// The epoch in which an incarnation begins that does not know any. Since it has done nothing yet, that may be any that a member is in.
    /// If all members are new, so that nobody knows, it is one that none of them had come to before.
    fn first(&self, me: NodeId) -> Option<Epoch> {
        let others = self.member_list.members().iter().filter(|&&(node, _)| node != me);
        // Who knows the same members knows this incarnation, and waits for it. What another says may be from any time: messages may be
        // under way for long.
        let told = |node: NodeId, incarnation: Incarnation| {
            self.told
                .get(&node)
                .filter(|told| told.incarnation == incarnation && told.members == self.member_list.digest)
        };
        let told: Vec<Option<&PeerEpoch>> = others.map(|&(node, incarnation)| told(node, incarnation)).collect();
        let known = told.iter().flatten().map(|told| told.epoch).filter(|&epoch| epoch > Epoch::UNKNOWN).max();
        let floors: Option<Vec<Epoch>> = told.iter().map(|told| Some((*told)?.finished)).collect();
        let reached = floors.map(|floors| floors.into_iter().chain([self.floor]).max().unwrap_or_default());
        known.or_else(|| Some(reached?.next().next()))
    }
}

/// The epoch before one.
const fn before(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_sub(1))
}

impl Control {
    /// A shard has finished an epoch.
    pub(super) fn finished(&mut self, shard_id: u32, epoch: Epoch) {
        self.epochs.finished(shard_id, epoch);
    }

    /// The epoch that is saved.
    pub const fn epoch(&self) -> Epoch {
        self.epochs.epoch
    }

    /// How far this node sees the cluster with its epoch.
    pub const fn epoch_status(&self) -> &EpochStatus {
        &self.epochs.status
    }

    /// Has the epochs go by the members of the view.
    pub(super) fn go_by_members(&mut self) {
        self.epochs.go_by(self.config.node, self.config.incarnation, &self.view);
    }

    /// Enters the next epoch if all have finished this one, and tells the others what has changed.
    pub(super) fn turn_epoch(&mut self, now: Now, effects: &mut ControlEffects) {
        self.go_by_members();
        if self.epochs.saving.is_none() && now.instant >= self.epochs.next_save {
            self.epochs.saving = self.epochs.next(self.config.node);
            effects.save_epoch = self.epochs.saving;
        }
        let own = (self.epochs.epoch, self.epochs.own(), self.epochs.member_list.digest);
        if self.epochs.last_told != own {
            self.epochs.last_told = own;
            let peers = self.everyone_or_some();
            self.tell_epoch(now, &peers, effects);
        }
        self.look_at_epoch(now, effects);
    }

    /// Tells some again of the epochs, one that is gossiped with among them: what was told may have been lost.
    pub(super) fn tell_epoch_again(&mut self, now: Now, peer: NodeId, effects: &mut ControlEffects) {
        let peers = if self.is_small() {
            vec![peer]
        } else if self.epochs.epoch == Epoch::UNKNOWN {
            // If all are new, each has to hear it from every other.
            let next = self.epochs.next_told;
            self.epochs.next_told = next.wrapping_add(TOLD);
            (0..TOLD).map(|at| self.others[next.wrapping_add(at) % self.others.len()]).collect()
        } else {
            self.some_others()
        };
        self.tell_epoch(now, &peers, effects);
    }

    fn tell_epoch(&self, now: Now, to: &[NodeId], effects: &mut ControlEffects) {
        let notice = self.epochs.notice();
        for &peer in to {
            self.send(now, peer, Notice::Epoch(notice.clone()), effects);
        }
    }

    /// [`ControlEffects::save_epoch`] has ended.
    pub(super) fn epoch_saved(&mut self, now: Now, result: Result<(), WriteFailed>, effects: &mut ControlEffects) {
        let Some(saved) = self.epochs.saving.take() else { return };
        match result {
            Ok(()) => {
                self.epochs.epoch = saved;
                self.epochs.is_news = true;
                effects.epoch = Some(saved);
            }
            Err(_) => self.epochs.next_save = now.instant + SAVE_RETRY_AFTER,
        }
    }

    fn look_at_epoch(&mut self, now: Now, effects: &mut ControlEffects) {
        let (status, epoch) = (&self.epochs.status, self.epochs.epoch);
        let is_new = status.epoch != epoch || status.since == WallMs::default();
        let may_wait = !is_new && !self.is_small() && now.instant < self.epochs.next_status;
        if !self.epochs.is_untold || may_wait {
            return;
        }
        self.epochs.is_untold = false;
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
