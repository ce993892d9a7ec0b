//! Changes of bucket settings by clients of this node.

use std::time::Duration;

use bytes::Bytes;

use super::{Control, ControlEffects, PENDING_MAX};
use crate::cluster::counts::{BUCKETS_MAX, ReplicaCounts};
use crate::cluster::membership::{BucketSettings, Change, ChangeKind, SettingsPatch};
use crate::message::client::{ClientId, Refusal, Shortfall};
use crate::value::hlc::Hlc;
use crate::value::key::Placement;
use crate::value::time::{Instant, Now};

/// How long a client waits for other nodes to learn of a change that is saved here.
const SPREAD_WITHIN: Duration = Duration::from_secs(1);
/// How many changes the history holds before a snapshot replaces them.
pub const SNAPSHOT_AFTER: usize = 1_000;
/// How many changes a history may hold before further ones are refused. It grows this far only while a member that is
/// away prevents a snapshot.
const CHANGES_MAX: usize = 10_000;

/// The form of a bucket's next generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewForm {
    /// How its keys are placed.
    pub placement: Placement,
    /// Whether nodes keep an index of its keys.
    pub is_indexed: bool,
}

/// A change of a bucket's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingsChange {
    /// The bucket.
    pub bucket: Bytes,
    /// The fields to change.
    pub settings: SettingsPatch,
    /// Set if the bucket is to be emptied: all that it holds is gone, and a new generation of it begins in this form. All members must support
    /// [`Protocol::KEY_INDEX`](crate::wire::Protocol::KEY_INDEX).
    pub empties: Option<NewForm>,
    /// How long the client waits.
    pub timeout: Duration,
}

/// A change that is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changed {
    /// The bucket's settings now.
    pub settings: BucketSettings,
    /// How many members have adopted them, this node included. The others follow.
    pub nodes: usize,
    /// The number of members.
    pub members: usize,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Pending {
    client: ClientId,
    change: SettingsChange,
    deadline: Instant,
    phase: ChangePhase,
}

#[derive(Debug)]
enum ChangePhase {
    /// The change is being saved.
    Saving(Box<Change>),
    /// The change is saved. Until this time it waits for other members to learn of it.
    Spreading { until: Instant },
}

impl Pending {
    pub(super) fn wake_at(&self) -> Instant {
        self.deadline.min(match &self.phase {
            ChangePhase::Saving(_) => self.deadline,
            ChangePhase::Spreading { until } => *until,
        })
    }
}

impl Control {
    /// Begins a client's change.
    pub(super) fn change(&mut self, now: Now, client: ClientId, change: SettingsChange, effects: &mut ControlEffects) {
        let current = *self.view.settings(&change.bucket);
        match self.acceptable(&change) {
            Ok(wanted) if wanted == current && change.empties.is_none() => {
                return effects.replies.push((client, Ok(self.changed(wanted))));
            }
            Ok(_) => {}
            Err(refusal) => return effects.replies.push((client, Err(refusal))),
        }
        let deadline = now.instant + change.timeout;
        let phase = self.record(now, &change);
        self.pending.push(Pending { client, change, deadline, phase });
    }

    /// The settings after a change, if it is allowed.
    fn acceptable(&self, change: &SettingsChange) -> Result<BucketSettings, Refusal> {
        let settings = change.settings.apply(*self.view.settings(&change.bucket));
        let settings = settings.map_err(|error| Refusal::BadRequest(error.to_string()))?;
        self.takes_changes()?;
        if self.pending.len() >= PENDING_MAX {
            return Err(Refusal::Overloaded);
        }
        let n = ReplicaCounts::default_n();
        if settings.n != n && !self.view.may_count(&change.bucket) {
            let why =
                format!("{BUCKETS_MAX} buckets have or had another n than {n}, which is the limit: use one of those");
            return Err(Refusal::BadRequest(why));
        }
        if self.wanted.len() >= CHANGES_MAX {
            return Err(Refusal::Unavailable(self.too_many_changes()));
        }
        Ok(settings)
    }

    fn record(&mut self, now: Now, change: &SettingsChange) -> ChangePhase {
        // The n of a bucket is a target. Each partition's configuration adopts it by a reconfiguration.
        let settings = SettingsPatch { n_by_versions: change.settings.n.is_some(), ..change.settings };
        let name = &change.bucket;
        let emptied = change.empties.map(|NewForm { placement, is_indexed }| ChangeKind::Empty {
            name: name.clone(),
            placement,
            is_indexed,
        });
        let set = ChangeKind::Bucket { name: name.clone(), settings };
        let is_set = emptied.is_none() || change.settings != SettingsPatch::default();
        let mut record = |kind| self.wanted.record(Hlc::at(now.wall), self.config.node, kind);
        let set = is_set.then(|| record(set));
        // Later changes are saved with all earlier ones.
        let last = emptied.map(record).or(set);
        last.map_or(ChangePhase::Spreading { until: now.instant }, |change| ChangePhase::Saving(Box::new(change)))
    }

    /// Marks the changes that were saved; true if any was.
    pub(super) fn note_saved(&mut self, now: Now) -> bool {
        let mut any = false;
        for pending in &mut self.pending {
            if let ChangePhase::Saving(change) = &pending.phase
                && self.history.knows(change)
            {
                pending.phase = ChangePhase::Spreading { until: now.instant + SPREAD_WITHIN };
                any = true;
            }
        }
        any
    }

    /// Replies to clients whose changes all members have, and to those whose time is up.
    pub(super) fn end_pending(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.pending.is_empty() {
            return;
        }
        let everywhere = self.nodes_up_to_date() == self.view.members().len();
        let is_due = |pending: &mut Pending| match pending.phase {
            ChangePhase::Spreading { until } => everywhere || now.instant >= until || now.instant >= pending.deadline,
            ChangePhase::Saving(_) => now.instant >= pending.deadline,
        };
        let due: Vec<Pending> = self.pending.extract_if(.., is_due).collect();
        for Pending { client, change, phase, .. } in due {
            let reply = match phase {
                ChangePhase::Spreading { .. } => Ok(self.changed(*self.view.settings(&change.bucket))),
                ChangePhase::Saving(_) => Err(not_saved()),
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

    /// The refusal of settings changes until all members know of the changes so far.
    fn too_many_changes(&self) -> Shortfall {
        let (know, members) = (self.nodes_up_to_date(), self.view.members().len());
        let why = format!(
            "{CHANGES_MAX} changes wait until all members know of them, and only {know} of {members} do: start those that are down, or \
             remove them"
        );
        Shortfall { answered: know as u32, needed: members as u32, why }
    }
}

fn not_saved() -> Refusal {
    let why = "the change could not be saved in time and may yet appear: see the node's log and ask again";
    Refusal::unavailable(why)
}
