//! Nodes, actors and dots: the names of writes and of their writers.

use std::fmt;

use crate::value::token::Token;

/// A node, as placement, clocks and messages name it: the first 64 bits of the MD5 hash of its name.
///
/// A name keeps its id for ever, so administrators on two sides of a partitioned network cannot assign one id to two names. A second name
/// with the same id is refused as a duplicate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The id with this number.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// The id of the node called `name`.
    pub fn of_name(name: &str) -> Self {
        Self((Token::of_name(name).position() >> 64) as u64)
    }

    /// The id as a number, for encodings.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:x}", self.0)
    }
}

/// One incarnation of a node: a random number drawn when its data directory is made.
///
/// An empty, restored or copied directory is a new incarnation: it does not remember what an earlier one wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// A mark of 23 bits that distinguishes a boot's operations from those of all other boots of the incarnation. It hardly ever equals a mark
    /// of another incarnation, whose boots begin at 1 again: a late response to one must not pass for a response to the other.
    pub const fn mark_of_boot(self, boot: u32) -> u64 {
        self.0.wrapping_add(boot as u64) & 0x7f_ffff
    }

    /// The first operation number of a boot, from the random number `drawn` by the boot. A directory restored from a copy has several boots with
    /// one number; their operations' numbers are far apart all the same.
    pub const fn first_operation(self, boot: u32, drawn: u64) -> u64 {
        self.mark_of_boot(boot) << 40 | drawn & ((1 << 36) - 1)
    }
}

/// When an actor began within an incarnation: the boot's number in the upper 24 bits, a count within the boot in the lower 40.
///
/// It is unique within an incarnation, because the boot number is made durable before a boot serves requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Since(pub u64);

impl Since {
    /// A value before every actor of a boot and after those of all earlier boots.
    pub const fn boot(boot: u32) -> Self {
        Self((boot as u64) << 40)
    }
}

/// A node's unbroken memory of one key.
///
/// Counters run 1, 2, 3, ... within an actor. A new actor begins whenever the memory may have a hole: the record was absent, damaged, handed
/// over or collected, or the node may have been set back. So no dot is ever made twice, and no clock covers what its maker never held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor {
    /// The node that writes.
    pub node: NodeId,
    /// A number that a boot of the node drew ([`crate::store::record::ActorsSince`]). For an actor of an earlier build, the node's incarnation.
    pub incarnation: Incarnation,
    /// When its memory of the key began.
    pub since: Since,
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{:x}.{:x}", self.node, self.incarnation.0, self.since.0)
    }
}

/// The identity of one write: the `counter`-th of `actor`, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The actor that made the write.
    pub actor: Actor,
    /// The number of the write, within the actor.
    pub counter: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.actor, self.counter)
    }
}
