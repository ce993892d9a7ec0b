//! Changes of members by administrators.

use std::time::Duration;

use super::{Control, ControlEffects, PENDING_MAX};
use crate::cluster::membership::{Change, ChangeKind, check_members};
use crate::message::client::{ClientId, Refusal};
use crate::ring::RingVersion;
use crate::value::hlc::Hlc;
use crate::value::time::{Instant, Now};

/// How long an administrator waits for other nodes to learn of a change that is saved here.
const SPREAD_WITHIN: Duration = Duration::from_secs(1);

/// A change of members: all of it is made, or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembersChange {
    /// The changes, in their order.
    pub changes: Vec<ChangeKind>,
    /// The version of the history that the change was planned on. On any other version it is refused.
    pub planned_on: Option<RingVersion>,
    /// How long the administrator waits.
    pub timeout: Duration,
}

/// A change of members that is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MembersChanged {
    /// The version of the history with the change.
    pub version: RingVersion,
    /// How many members know of it, this node included. The others follow.
    pub nodes: usize,
    /// The number of members.
    pub members: usize,
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Recording {
    client: ClientId,
    changes: Vec<Change>,
    deadline: Instant,
    /// Set once it is saved: until then it waits for other members to learn of it.
    spreads_until: Option<Instant>,
}

impl Recording {
    pub(super) fn wake_at(&self) -> Instant {
        self.spreads_until.map_or(self.deadline, |until| until.min(self.deadline))
    }
}

impl Control {
    /// Begins an administrator's change.
    pub(super) fn change_members(
        &mut self,
        now: Now,
        client: ClientId,
        change: MembersChange,
        effects: &mut ControlEffects,
    ) {
        if let Err(refusal) = self.acceptable_members(&change) {
            return effects.member_replies.push((client, Err(refusal)));
        }
        let (hlc, node) = (Hlc::at(now.wall), self.config.node);
        let changes = change.changes.into_iter().map(|what| self.wanted.record(hlc, node, what)).collect();
        let deadline = now.instant + change.timeout;
        self.recordings.push(Recording { client, changes, deadline, spreads_until: None });
    }

    fn acceptable_members(&self, change: &MembersChange) -> Result<(), Refusal> {
        self.takes_changes()?;
        if self.recordings.len() >= PENDING_MAX {
            return Err(Refusal::Overloaded);
        }
        if change.planned_on.is_some_and(|planned_on| planned_on != self.wanted.version()) {
            let why = "the cluster has changed since this was planned: look at the plan again";
            return Err(Refusal::BadRequest(why.to_owned()));
        }
        check_members(&self.wanted, &change.changes).map_err(|why| Refusal::BadRequest(why.to_string()))
    }

    /// Replies to administrators whose changes all members know of, and to those whose time is up.
    pub(super) fn end_recordings(&mut self, now: Now, effects: &mut ControlEffects) {
        if self.recordings.is_empty() {
            return;
        }
        let everywhere = self.nodes_up_to_date() == self.view.members().len();
        for recording in &mut self.recordings {
            let is_saved = recording.changes.iter().all(|change| self.history.knows(change));
            if recording.spreads_until.is_none() && is_saved {
                recording.spreads_until = Some(now.instant + SPREAD_WITHIN);
            }
        }
        let is_due = |recording: &mut Recording| {
            let is_known = recording.spreads_until.is_some() && everywhere;
            is_known || now.instant >= recording.wake_at()
        };
        let due: Vec<Recording> = self.recordings.extract_if(.., is_due).collect();
        for Recording { client, spreads_until, .. } in due {
            let version = self.version();
            let (nodes, members) = (self.nodes_up_to_date(), self.view.members().len());
            let reply = match spreads_until {
                Some(_) => Ok(MembersChanged { version, nodes, members }),
                None => {
                    let why = "the change could not be saved in time and may yet appear: see the node's log and the cluster's status";
                    Err(Refusal::unavailable(why))
                }
            };
            effects.member_replies.push((client, reply));
        }
    }
}
