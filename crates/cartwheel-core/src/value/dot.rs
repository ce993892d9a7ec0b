//! Who wrote what: nodes, actors and dots.

use std::fmt;

use crate::value::token::Token;

/// A node, as placement, clocks and messages name it: the first 64 bits of the MD5 hash of its name.
///
/// A name keeps its id for ever, so two administrators who add nodes on two sides of a cut network cannot hand out one
/// id twice; a second name with the same id is refused as a duplicate.
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

    /// The id as a number, for formats.
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
    /// 23 bits by which a boot's operations are told from those of all other boots of the incarnation, and hardly ever agree with those of
    /// another incarnation, whose boots begin at 1 again: a late answer to the one must not pass for an answer to the other.
    pub const fn mark_of_boot(self, boot: u32) -> u64 {
        self.0.wrapping_add(boot as u64) & 0x7f_ffff
    }

    /// Where the numbers of a boot's operations begin, by the random number that the boot drew. A directory that was put back from a copy
    /// has boots of one number more than once; the numbers of their operations are far apart all the same.
    pub const fn first_operation(self, boot: u32, drawn: u64) -> u64 {
        self.mark_of_boot(boot) << 40 | drawn & ((1 << 36) - 1)
    }
}

/// When, within an incarnation, an actor began: the boot's number in the upper 24 bits, a count within the boot in the lower 40.
///
/// It is unique within an incarnation, because the boot number is made durable before a boot serves anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Since(pub u64);

impl Since {
    /// Before every actor of a boot and after those of all boots before it.
    pub const fn boot(boot: u32) -> Self {
        Self((boot as u64) << 40)
    }
}

/// A node's unbroken memory of one key.
///
/// Counters run 1, 2, 3, ... within an actor. Whenever the memory may have a hole (the record was absent, damaged, handed
/// over or reclaimed, or the node may have been set back) a new actor begins, so that no dot is ever made twice and no clock covers what its
/// maker never held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor {
    /// The node that writes.
    pub node: NodeId,
    /// A number that a boot of the node drew ([`crate::store::record::ActorsSince`]); of an actor of an earlier build, the node's incarnation.
    pub incarnation: Incarnation,
    /// When its memory of the key began.
    pub since: Since,
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{:x}.{:x}", self.node, self.incarnation.0, self.since.0)
    }
}

/// The name of one write: the `counter`-th of `actor`, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who made it.
    pub actor: Actor,
    /// Which of the actor's writes it is.
    pub counter: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.actor, self.counter)
    }
}
