//! The second half of a strong get: a majority must come to hold exactly what is answered.
//!
//! Joining a majority's states is not enough. Of two gets at the same time, one may have met write x and not y, the other y and
//! not x, and no order of the writes explains both. If each answers only what a majority held *exactly*, then some replica held
//! the one and later the other; a replica's state only grows, so the one answer includes the other.

use std::collections::{BTreeMap, BTreeSet};

use super::read_round::Joined;
use crate::dot::NodeId;
use crate::message::StateDigest;
use crate::state::State;

/// A join on its way to a majority.
#[derive(Debug)]
pub struct Agreement {
    homes: Vec<NodeId>,
    needed: usize,
    joined: Joined,
    /// What each home was last known to hold exactly, of those that count.
    held: BTreeMap<NodeId, StateDigest>,
}

impl Agreement {
    /// Begins with what a read of a majority has joined.
    pub fn new(homes: Vec<NodeId>, needed: usize, joined: Joined) -> Self {
        let held = joined.held.clone();
        Self { homes, needed, joined, held }
    }

    /// What a majority is to hold.
    pub const fn joined(&self) -> &Joined {
        &self.joined
    }

    /// The homes known to hold exactly that.
    pub fn agreeing(&self) -> BTreeSet<NodeId> {
        let exactly = |(_, digest): &(&NodeId, &StateDigest)| **digest == self.joined.digest;
        self.held.iter().filter(exactly).map(|(&node, _)| node).collect()
    }

    /// Whether a majority holds exactly what is to be answered.
    pub fn is_reached(&self) -> bool {
        self.agreeing().len() >= self.needed
    }

    /// The homes that must be sent the join.
    pub fn behind(&self) -> Vec<NodeId> {
        let agreeing = self.agreeing();
        self.homes.iter().copied().filter(|node| !agreeing.contains(node)).collect()
    }

    /// A home has stored the join and holds exactly this; true if it taught us something, so that the join has grown.
    pub fn holds(&mut self, node: NodeId, digest: StateDigest, state: Option<&State>, counts: bool) -> bool {
        if counts {
            self.held.insert(node, digest);
        }
        let grown = state.is_some_and(|state| self.joined.state.merge(state).changed);
        if grown {
            self.joined.digest = StateDigest::of(&self.joined.state);
        }
        grown
    }
}
