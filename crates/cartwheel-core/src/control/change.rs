//! Changes of settings that clients of this node want.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::{About, Control, ControlEffects, Inquiry, InquiryId, PENDING_MAX};
use crate::dot::NodeId;
use crate::effects::ClientId;
use crate::hlc::Hlc;
use crate::membership::{BucketSettings, Change, ChangeKind, SettingsPatch};
use crate::request::{Refusal, Shortfall};
use crate::time::{Instant, Now};

/// How long a client waits for other nodes to know of a change that is saved here.
const SPREAD_WITHIN: Duration = Duration::from_secs(1);
/// How long a node waits for an answer about a bucket before it asks again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How many changes the history holds when a snapshot takes their place.
pub const SNAPSHOT_AFTER: usize = 1_000;
/// How many changes a history may hold before no more are taken: so many only come together while a member that is away keeps a snapshot
/// from taking their place.
const CHANGES_MAX: usize = 10_000;

/// What a client wants changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsChange {
    /// The bucket.
    pub bucket: Bytes,
    /// The fields to change.
    pub settings: SettingsPatch,
    /// How long the client waits.
    pub timeout: Duration,
}

/// A change that is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changed {
    /// The bucket's settings now.
    pub settings: BucketSettings,
    /// How many members go by them already, this node included; the others will.
    pub nodes: usize,
    /// How many members there are.
    pub members: usize,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Pending {
    client: ClientId,
    change: SettingsChange,
    deadline: Instant,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// These members have yet to say that they hold nothing in the bucket.
    Asking { id: InquiryId, silent: BTreeSet<NodeId>, ask_again: Instant },
    /// It is not saved yet.
    Saving(Box<Change>),
    /// It is saved; others get to know of it until then.
    Spreading { until: Instant },
}

impl Pending {
    /// When something is due.
    pub(super) fn wake_at(&self) -> Instant {
        self.deadline.min(match &self.phase {
            Phase::Asking { ask_again, .. } => *ask_again,
            Phase::Saving(_) => self.deadline,
            Phase::Spreading { until } => *until,
        })
    }
}

impl Control {
    /// Begins a change that a client wants.
    pub(super) fn change(&mut self, now: Now, client: ClientId, change: SettingsChange, effects: &mut ControlEffects) {
        let current = *self.view.settings(&change.bucket);
        let wanted = match self.acceptable(&change) {
            Ok(wanted) if wanted == current => {
                return effects.replies.push((client, Ok(self.changed(wanted))));
            }
            Ok(wanted) => wanted,
            Err(refusal) => return effects.replies.push((client, Err(refusal))),
        };
        let deadline = now.instant + change.timeout;
        let phase =
            if wanted.n == current.n { self.record(now, &change) } else { self.ask_all(now, &change.bucket, effects) };
        self.pending.push(Pending { client, change, deadline, phase });
    }

    /// The settings that a change would lead to, if it can be made.
    fn acceptable(&self, change: &SettingsChange) -> Result<BucketSettings, Refusal> {
        let settings = change.settings.apply(*self.view.settings(&change.bucket));
        let settings = settings.map_err(|error| Refusal::BadRequest(error.to_string()))?;
        self.takes_changes()?;
        if self.pending.len() >= PENDING_MAX {
            return Err(Refusal::Overloaded);
        }
        if self.wanted.len() >= CHANGES_MAX {
            return Err(Refusal::Unavailable(self.too_many_changes()));
        }
        Ok(settings)
    }

    fn record(&mut self, now: Now, change: &SettingsChange) -> Phase {
        let kind = ChangeKind::Bucket { name: change.bucket.clone(), settings: change.settings };
        Phase::Saving(Box::new(self.wanted.record(Hlc::at(now.wall), self.config.node, kind)))
    }

    /// A bucket that holds keys keeps its n: its keys lie on their homes, and new homes would have nothing to say of them.
    fn ask_all(&mut self, now: Now, bucket: &Bytes, effects: &mut ControlEffects) -> Phase {
        let id = self.inquiries.next_id();
        let silent: BTreeSet<NodeId> = self.view.members().map(|member| member.member.id).collect();
        for &node in &silent {
            self.ask(now, node, Inquiry { id, about: About::Bucket(bucket.clone()) }, effects);
        }
        Phase::Asking { id, silent, ask_again: now.instant + ASK_AGAIN_AFTER }
    }

    /// Asks those again who have not answered.
    pub(super) fn ask_again(&mut self, now: Now, effects: &mut ControlEffects) {
        let mut asks = Vec::new();
        for pending in &mut self.pending {
            if let Phase::Asking { id, silent, ask_again } = &mut pending.phase
                && *ask_again <= now.instant
            {
                *ask_again = now.instant + ASK_AGAIN_AFTER;
                let inquiry = Inquiry { id: *id, about: About::Bucket(pending.change.bucket.clone()) };
                asks.extend(silent.iter().map(|&node| (node, inquiry.clone())));
            }
        }
        for (node, inquiry) in asks {
            self.ask(now, node, inquiry, effects);
        }
    }

    /// A member has said whether it holds anything.
    pub(super) fn answered(
        &mut self,
        now: Now,
        from: NodeId,
        inquiry: InquiryId,
        holds: bool,
        effects: &mut ControlEffects,
    ) {
        let asked = |pending: &Pending| matches!(&pending.phase, Phase::Asking { id, .. } if *id == inquiry);
        let Some(place) = self.pending.iter().position(asked) else { return };
        let Phase::Asking { silent, .. } = &mut self.pending[place].phase else { return };
        silent.remove(&from);
        let all_empty = silent.is_empty();
        if holds {
            let Pending { client, change, .. } = self.pending.swap_remove(place);
            effects.replies.push((client, Err(holds_keys(&change.bucket))));
        } else if all_empty {
            let change = self.pending[place].change.clone();
            match self.acceptable(&change) {
                Ok(_) => self.pending[place].phase = self.record(now, &change),
                Err(refusal) => effects.replies.push((self.pending.swap_remove(place).client, Err(refusal))),
            }
        }
    }

    /// Notes which changes have been saved; true if any has just been.
    pub(super) fn note_saved(&mut self, now: Now) -> bool {
        let mut any = false;
        for pending in &mut self.pending {
            if let Phase::Saving(change) = &pending.phase
                && self.history.knows(change)
            {
                pending.phase = Phase::Spreading { until: now.instant + SPREAD_WITHIN };
                any = true;
            }
        }
        any
    }

    /// Answers the clients whose changes everyone knows of, and those who will wait no longer.
    pub(super) fn end_pending(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.pending.is_empty() {
            return;
        }
        let everywhere = self.nodes_up_to_date() == self.view.members().len();
        let is_due = |pending: &mut Pending| match pending.phase {
            Phase::Spreading { until } => everywhere || now.instant >= until || now.instant >= pending.deadline,
            Phase::Asking { .. } | Phase::Saving(_) => now.instant >= pending.deadline,
        };
        let due: Vec<Pending> = self.pending.extract_if(.., is_due).collect();
        for Pending { client, change, phase, .. } in due {
            let reply = match phase {
                Phase::Spreading { .. } => Ok(self.changed(*self.view.settings(&change.bucket))),
                Phase::Asking { silent, .. } => Err(self.too_silent(silent.len())),
                Phase::Saving(_) => Err(not_saved()),
            };
            effects.replies.push((client, reply));
        }
    }

    pub(super) fn nodes_up_to_date(&self) -> usize {
        let version = self.version();
        1 + self.others.iter().filter(|&peer| self.peers.get(peer) == Some(&version)).count()
    }

    fn changed(&self, settings: BucketSettings) -> Changed {
        Changed { settings, nodes: self.nodes_up_to_date(), members: self.view.members().len() }
    }

    /// Its settings can be changed again once all members know of the changes so far.
    fn too_many_changes(&self) -> Shortfall {
        let (know, members) = (self.nodes_up_to_date(), self.view.members().len());
        let why = format!(
            "{CHANGES_MAX} changes wait until all members know of them, and only {know} of {members} do: start those that are down, or \
             remove them"
        );
        Shortfall { answered: know as u32, needed: members as u32, why }
    }

    fn too_silent(&self, silent: usize) -> Refusal {
        let members = self.view.members().len();
        let why = "n can be changed only while all nodes say that the bucket holds nothing: start those that are down"
            .to_owned();
        // Some of the silent ones may be members no more.
        Refusal::Unavailable(Shortfall { answered: members.saturating_sub(silent) as u32, needed: members as u32, why })
    }
}

fn holds_keys(bucket: &[u8]) -> Refusal {
    Refusal::BadRequest(format!(
        "the bucket {} holds keys, or tombstones of deleted ones, and this version cannot move them: n can be changed only \
         before the first write; use another bucket",
        bucket.escape_ascii()
    ))
}

fn not_saved() -> Refusal {
    let why = "the change could not be saved in time and may yet appear: see the node's log and ask again".to_owned();
    Refusal::Unavailable(Shortfall { answered: 0, needed: 1, why })
}
