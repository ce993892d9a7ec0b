//! One key that two homes hold differently: both are read, what they hold is joined, and whoever lacks something of it merges it.

use crate::message::{Confirm, ReplicaRequest, ReplicaResponse, Role, Want};
use crate::value::key::Key;
use crate::value::state::{Epoch, State};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// This node.
    Here,
    /// The other.
    There,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LevelProgress {
    /// Answers are missing.
    Waiting,
    /// The merges are to be asked for.
    Merge,
    /// Both hold all that either held.
    Level,
    /// One of them could not.
    Failed,
}

/// A key being made equal.
#[derive(Debug)]
pub struct Level {
    /// The key.
    pub key: Key,
    held: [Option<State>; 2],
    epoch: Epoch,
    /// The join, and who has yet to store it.
    merging: Option<(State, [bool; 2])>,
}

const SIDES: [Side; 2] = [Side::Here, Side::There];

impl Level {
    /// A key that has been read nowhere yet, in this epoch.
    pub const fn new(key: Key, epoch: Epoch) -> Self {
        Self { key, held: [None, None], epoch, merging: None }
    }

    /// What has been asked and not answered. What a read and a merge of it answer cannot be mixed up.
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

    /// Takes in an answer.
    pub fn answered(&mut self, side: Side, answer: ReplicaResponse) -> LevelProgress {
        match (&mut self.merging, answer) {
            (_, ReplicaResponse::Failed(_)) => return LevelProgress::Failed,
            (None, ReplicaResponse::State { state, epoch, .. }) => {
                self.epoch = self.epoch.min(epoch);
                self.held[side as usize] = Some(state);
            }
            (Some((_, lacks)), ReplicaResponse::Stored) => {
                lacks[side as usize] = false;
                return if *lacks == [false; 2] { LevelProgress::Level } else { LevelProgress::Waiting };
            }
            _ => return LevelProgress::Waiting,
        }
        let (None, [Some(here), Some(there)]) = (&self.merging, &self.held) else { return LevelProgress::Waiting };
        let mut join = here.clone();
        join.merge(there);
        let lacks = [join != *here, join != *there];
        self.merging = Some((join, lacks));
        if lacks == [false; 2] { LevelProgress::Level } else { LevelProgress::Merge }
    }
}
