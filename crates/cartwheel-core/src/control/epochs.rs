//! When the cluster enters the next epoch ([`crate::epoch`]).
//!
//! Every member tells every other in which epoch it is, which it has finished, and whom it knows as members. One that finds that all
//! of them have finished its epoch, and all whom they know too, saves the next and enters it. So no two members are ever more than
//! one epoch apart, and none is left behind that any of them knows of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Control, ControlEffects, Notice};
use crate::dot::{Life, NodeId};
use crate::effects::WriteFailed;
use crate::epoch::Epoch;
use crate::hlc::WallMs;
use crate::membership::{Member, View};
use crate::time::{Instant, Now};

/// How long a node waits before it tries again to save an epoch that it could not.
const SAVE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many members a peer's list may have; it keeps a broken peer from filling memory.
const MEMBERS_MAX: usize = 10_000;

/// What a member tells of its epochs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochNotice {
    /// In which it is.
    pub epoch: Epoch,
    /// The last that it has finished. Of one that does not know the epoch: one that the cluster had reached when it was made.
    pub finished: Epoch,
    /// Whom it knows as members, itself included.
    pub members: Vec<(NodeId, Life)>,
}

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

/// What one member has told.
#[derive(Debug)]
struct Told {
    life: Life,
    notice: EpochNotice,
}

/// The epochs, as one node knows them.
#[derive(Debug)]
pub(super) struct Epochs {
    /// The one that is saved.
    epoch: Epoch,
    /// One that the cluster had reached when this life was made.
    floor: Epoch,
    saving: Option<Epoch>,
    next_save: Instant,
    /// What each of the node's shards has finished.
    lanes: Vec<Epoch>,
    told: BTreeMap<NodeId, Told>,
    /// What this node last told everyone.
    last_told: (Epoch, Epoch),
    status: EpochStatus,
}

impl Epochs {
    pub(super) fn new(epoch: Epoch, floor: Epoch, lanes: u32) -> Self {
        Self {
            epoch,
            floor,
            saving: None,
            next_save: Instant::default(),
            lanes: vec![Epoch::UNKNOWN; lanes as usize],
            told: BTreeMap::new(),
            last_told: (Epoch::UNKNOWN, Epoch::UNKNOWN),
            status: EpochStatus::default(),
        }
    }

    /// A shard has finished an epoch.
    pub(super) fn finished(&mut self, lane: u32, epoch: Epoch) {
        if let Some(finished) = self.lanes.get_mut(lane as usize) {
            *finished = epoch.max(*finished);
        }
    }

    /// What this node has finished: what all its shards have, and all before the epoch that it is in.
    fn own(&self) -> Epoch {
        if self.epoch == Epoch::UNKNOWN {
            return self.floor;
        }
        let lanes = self.lanes.iter().copied().min().unwrap_or_default();
        lanes.max(Epoch(self.epoch.0.saturating_sub(1)))
    }

    /// Takes in what a member tells.
    pub(super) fn heard(&mut self, from: NodeId, life: Life, notice: EpochNotice) {
        if notice.members.len() > MEMBERS_MAX {
            return;
        }
        let is_old = |told: &Told| told.life == life && told.notice.epoch > notice.epoch;
        if self.told.get(&from).is_none_or(|told| !is_old(told)) {
            self.told.insert(from, Told { life, notice });
        }
    }

    /// Whom this node waits for before it may enter the epoch after its own. It may not while a member is known to another that it
    /// does not know itself, either.
    fn waits_for(&self, me: NodeId, view: &View) -> Option<BTreeSet<NodeId>> {
        let mut waits: BTreeSet<NodeId> = BTreeSet::new();
        if self.own() < self.epoch {
            waits.insert(me);
        }
        for member in view.members().map(|known| &known.member).filter(|member| member.id != me) {
            let told = self.told.get(&member.id).filter(|told| told.life == member.life);
            if told.is_none_or(|told| told.notice.finished < self.epoch) {
                waits.insert(member.id);
            }
            let known = told.into_iter().flat_map(|told| &told.notice.members);
            let is_known = |id: NodeId, life: Life| view.member(id).is_some_and(|known| known.member.life == life);
            if known.copied().any(|(id, life)| !is_known(id, life) && !view.is_gone(id, life)) {
                return None;
            }
        }
        Some(waits)
    }

    /// The epoch that the node is to enter, if it may.
    fn next(&self, me: NodeId, view: &View) -> Option<Epoch> {
        if self.epoch == Epoch::UNKNOWN {
            return self.first(me, view);
        }
        self.waits_for(me, view)?.is_empty().then(|| self.epoch.next())
    }

    /// The epoch in which a life begins that does not know any. Since it has done nothing yet, that may be any that a member is in.
    /// If all members are new, so that nobody knows, it is one that none of them had come to before.
    fn first(&self, me: NodeId, view: &View) -> Option<Epoch> {
        let own = view.member(me).map(|known| known.member.life);
        let others = view.members().map(|known| &known.member).filter(|member| member.id != me);
        // Who knows this life waits for it. What another says may be from any time: messages may be under way for long.
        let knows_me = |told: &&Told| told.notice.members.iter().any(|&(id, life)| id == me && Some(life) == own);
        let told = |member: &Member| self.told.get(&member.id).filter(|told| told.life == member.life).filter(knows_me);
        let notices: Vec<Option<&EpochNotice>> = others.map(|member| Some(&told(member)?.notice)).collect();
        let known = notices.iter().flatten().map(|notice| notice.epoch).filter(|&epoch| epoch > Epoch::UNKNOWN).max();
        let floors: Option<Vec<Epoch>> = notices.iter().map(|notice| Some((*notice)?.finished)).collect();
        let reached = floors.map(|floors| floors.into_iter().chain([self.floor]).max().unwrap_or_default());
        known.or_else(|| Some(reached?.next().next()))
    }
}

impl Control {
    /// A shard has finished an epoch.
    pub(super) fn finished(&mut self, lane: u32, epoch: Epoch) {
        self.epochs.finished(lane, epoch);
    }

    /// The epoch that is saved.
    pub const fn epoch(&self) -> Epoch {
        self.epochs.epoch
    }

    /// How far this node sees the cluster with its epoch.
    pub const fn epoch_status(&self) -> &EpochStatus {
        &self.epochs.status
    }

    /// Enters the next epoch if all have finished this one, and tells the others what has changed.
    pub(super) fn turn_epoch(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.epochs.saving.is_none() && now.instant >= self.epochs.next_save {
            self.epochs.saving = self.epochs.next(self.config.node, &self.view);
            effects.save_epoch = self.epochs.saving;
        }
        let own = (self.epochs.epoch, self.epochs.own());
        if self.epochs.last_told != own {
            self.epochs.last_told = own;
            for peer in self.others() {
                self.tell_epoch(now, peer, effects);
            }
        }
        self.look_at_epoch(now, effects);
    }

    /// Tells a member of the epochs again: what was told may have been lost.
    pub(super) fn tell_epoch(&self, now: Now, to: NodeId, effects: &mut ControlEffects) {
        let members = self.view.members().map(|known| (known.member.id, known.member.life)).collect();
        let notice = EpochNotice { epoch: self.epochs.epoch, finished: self.epochs.own(), members };
        self.send(now, to, Notice::Epoch(notice), effects);
    }

    /// [`ControlEffects::save_epoch`] has ended.
    pub(super) fn epoch_saved(&mut self, now: Now, result: Result<(), WriteFailed>, effects: &mut ControlEffects) {
        let Some(saved) = self.epochs.saving.take() else { return };
        match result {
            Ok(()) => {
                self.epochs.epoch = saved;
                effects.epoch = Some(saved);
            }
            Err(_) => self.epochs.next_save = now.instant + SAVE_RETRY_AFTER,
        }
    }

    fn look_at_epoch(&mut self, now: Now, effects: &mut ControlEffects) {
        let waits_for = self.epochs.waits_for(self.config.node, &self.view).unwrap_or_default();
        let status = &mut self.epochs.status;
        let is_new = status.epoch != self.epochs.epoch || status.since == WallMs::default();
        if is_new || status.waits_for != waits_for {
            let since = if is_new { now.wall } else { status.since };
            *status = EpochStatus { epoch: self.epochs.epoch, since, waits_for };
            effects.epoch_status = Some(status.clone());
        }
    }
}
