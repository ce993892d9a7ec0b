//! The progress of a transfer, in the form that a store keeps.

use std::collections::BTreeSet;

use crate::cluster::counts::Group;
use crate::message::anti_entropy::KeyRange;
use crate::value::dot::Since;

/// The saved form of a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    /// The store's loss floor when this was saved. After a later loss, what was fetched may be lost again.
    pub floor: Since,
    /// The groups of keys that are fetched.
    pub groups: BTreeSet<Group>,
    /// The ranges that are still to be fetched.
    pub left: Vec<KeyRange>,
}
