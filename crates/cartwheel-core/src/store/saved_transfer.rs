//! How far a transfer has come, as a store keeps it.

use std::collections::BTreeSet;

use crate::cluster::counts::Group;
use crate::message::anti_entropy::KeyRange;
use crate::value::dot::Since;

/// The saved form of a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    /// When the store last lost writes: what was fetched before may be lost again.
    pub floor: Since,
    /// Of the keys of these groups.
    pub groups: BTreeSet<Group>,
    /// What is left.
    pub left: Vec<KeyRange>,
}
