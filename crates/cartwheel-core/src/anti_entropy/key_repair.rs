//! Repair of one key that differs between two homes: both are read and joined, and a home that lacks something of the
//! join merges it.

use crate::message::{Confirm, ReplicaRequest, ReplicaResponse, Role, Want};
use crate::value::key::Key;
use crate::value::state::{Epoch, State};

/// One of the two homes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// This node.
    Here,
    /// The peer.
    There,
}

/// The progress of one repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepairProgress {
    /// Responses are missing.
    Waiting,
    /// The merges can be requested.
    Merge,
    /// Both hold all that either held.
    Done,
    /// One of them has failed.
    Failed,
}

/// The repair of one key.
#[derive(Debug)]
pub struct KeyRepair {
    /// The key.
    pub key: Key,
    held: [Option<State>; 2],
    epoch: Epoch,
    /// The join, and which sides have yet to store it.
    merging: Option<(State, [bool; 2])>,
}

const SIDES: [Side; 2] = [Side::Here, Side::There];

impl KeyRepair {
    /// A key that neither side has read yet.
    pub const fn new(key: Key, epoch: Epoch) -> Self {
        Self { key, held: [None, None], epoch, merging: None }
    }

    /// The unanswered requests. A read and a merge have different responses, so these cannot be mixed up.
    pub fn requests(&self) -> Vec<(Side, ReplicaRequest)> {
        match &self.merging {
            None => {
                let read = || ReplicaRequest::Read { key: self.key.clone(), want: Want::State, role: Role::Home };
                SIDES
                    .into_iter()
                    .filter(|&side| self.held[side as usize].is_none())
                    .map(|side| (side, read()))
                    .collect()
            }
            Some((state, lacks)) => {
                let merge = || ReplicaRequest::Merge {
                    key: self.key.clone(),
                    state: state.clone(),
                    epoch: self.epoch,
                    heals: None,
                    confirm: Confirm::Stored,
                    stands_in_for: None,
                };
                SIDES.into_iter().filter(|&side| lacks[side as usize]).map(|side| (side, merge())).collect()
            }
        }
    }

    /// Takes in a response.
    pub fn on_response(&mut self, side: Side, response: ReplicaResponse) -> RepairProgress {
        match (&mut self.merging, response) {
            (_, ReplicaResponse::Failed(_)) => return RepairProgress::Failed,
            (None, ReplicaResponse::State { state, epoch, .. }) => {
                self.epoch = self.epoch.min(epoch);
                self.held[side as usize] = Some(state);
            }
            (Some((_, lacks)), ReplicaResponse::Stored) => {
                lacks[side as usize] = false;
                return if *lacks == [false; 2] { RepairProgress::Done } else { RepairProgress::Waiting };
            }
            _ => return RepairProgress::Waiting,
        }
        let (None, [Some(here), Some(there)]) = (&self.merging, &self.held) else { return RepairProgress::Waiting };
        let mut join = here.clone();
        join.merge(there);
        let lacks = [join != *here, join != *there];
        self.merging = Some((join, lacks));
        if lacks == [false; 2] { RepairProgress::Done } else { RepairProgress::Merge }
    }
}
