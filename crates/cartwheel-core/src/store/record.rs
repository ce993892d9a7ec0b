//! Records: what one node stores for one key.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::losses::{Loss, Memory};
use crate::store::gc_due::GcDue;
use crate::value::clock::Clock;
use crate::value::digest::ContentDigest;
use crate::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use crate::value::state::{Epoch, State};

/// The version of the stored form, which is raised with a version of the protocol ([`Protocol`](crate::wire::Protocol)) that changes it. Since 2, notes are one
/// field of the state, and the checksum is XXH3. Since 3, the header says whether the key is in the index of its bucket.
pub(crate) const VERSION: u8 = 3;
/// The lowest version that is still read, and written while some members do not know the latest.
pub(crate) const OLDEST_VERSION: u8 = 2;

/// A key's state together with the node's local header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Local to this node; never sent.
    pub header: LocalHeader,
    /// The replicated state, which becomes the same on every replica.
    pub state: State,
}

/// A node's own memory of a key. It is not replicated, because it would not be true of another node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalHeader {
    /// The actor under which this node writes the key, and its latest counter. `None` before the first write, and whenever the node's memory of
    /// the key may have a hole. The actor ends when the node can no longer prove that it knows all its writes ([`ActorsSince`]).
    pub own: Option<OwnActor>,
    /// Set while this node has lost what it held of the key and has not recovered it, so that its responses do not count.
    pub recovering: Option<Loss>,
    /// The epoch in which the record's siblings last changed.
    pub changed: Epoch,
    /// Losses of the node's store before this have left no hole in the record: it did not exist then, or has recovered since. Compared with
    /// [`crate::config::NodeConfig::loss_floor`].
    pub recovered_since: Since,
    /// The homes for which this node keeps the record as a hint, until each has confirmed that it holds the same (paper, section 4.6). The value
    /// is the epoch since which it is kept. Empty on a home.
    pub owed: BTreeMap<NodeId, Epoch>,
    /// When the record is due for garbage collection, if it has anything to collect. The index has an entry for it.
    pub gc_due: Option<GcDue>,
    /// The epoch in which this node had first found all expired values of the record expired.
    pub expired_since: Option<Epoch>,
    /// The actors without a sibling, in a record with many of them that changes all the time.
    pub idle: Option<Idle>,
    /// Whether the index has an entry for the key ([`crate::store::key_index`]).
    pub is_listed: bool,
    /// What the record added to the sums of its Merkle tree; `None` if a build without trees wrote it.
    pub content: Option<ContentDigest>,
}

/// Actors without a sibling, which are collected one by one ([`crate::replica::gc`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Idle {
    /// The epoch in which they were noted.
    pub since: Epoch,
    /// All their dots at that time.
    pub noted: Clock,
    /// The dots of those collected last. They may come back from homes that have not collected them yet.
    pub gone: Clock,
}

impl LocalHeader {
    /// Whether this record was lost after the store's last loss, `floor`, and has not recovered.
    pub fn is_lost_since(&self, floor: Since) -> bool {
        self.recovering.is_some() && self.recovered_since >= floor
    }
}

/// The current actor of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnActor {
    /// When it began.
    pub since: Since,
    /// The counter of its last dot.
    pub count: u64,
}

/// Why bytes are not a valid record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// The format version is unknown to this build.
    Version(u8),
    /// The bytes differ from what was stored.
    Damaged,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(
                    f,
                    "the record has format version {version}, and this build reads {VERSION}: use the newer build that stored it"
                )
            }
            Self::Damaged => f.write_str("the record is damaged: its checksum does not match"),
        }
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// A replacement for a record that cannot be read. The loss was noticed at or after `since`.
    pub fn lost(loss: Loss, since: Since) -> Self {
        let header = LocalHeader {
            recovering: Some(loss),
            recovered_since: since,
            content: Some(ContentDigest::NONE),
            ..LocalHeader::default()
        };
        Self { header, state: State::default() }
    }
}

/// The boot since which a node continues the actors it has begun, and the random number that this boot drew, from which their names are derived.
///
/// It is the present boot, unless the directory is known to be exactly what the last boot left when it stopped, and no other copy of it can have
/// been served. Only then does the store contain all dots that the node has made. So a directory restored from a copy, of whatever boot and at
/// whatever time, never makes a dot that another run of it has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActorsSince {
    /// The boot's number within the incarnation.
    pub boot: u32,
    /// The random number that it drew.
    pub drawn: u64,
}

/// Makes the dots of one boot of one node.
#[derive(Clone, Debug)]
pub struct Minter {
    node: NodeId,
    incarnation: Incarnation,
    /// The number that names actors, in place of the incarnation.
    named: Incarnation,
    boot: u32,
    begun: u64,
    /// Actors that began before this are not continued.
    floor: Since,
    /// When the last loss was noticed, or else when the boot began.
    lost_at: Since,
}

impl Minter {
    /// The minter of a boot. Boots are numbered from 1 within an incarnation, and the number is durable before the boot serves requests.
    pub fn new(node: NodeId, incarnation: Incarnation, boot: u32, actors: ActorsSince) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("cartwheel actors of a boot");
        for part in [incarnation.0, actors.boot.into(), actors.drawn] {
            hasher.update(&part.to_be_bytes());
        }
        let mut named = [0; 8];
        hasher.finalize_xof().fill(&mut named);
        Self {
            node,
            incarnation,
            named: Incarnation(u64::from_be_bytes(named)),
            boot,
            begun: 0,
            floor: Since::boot(actors.boot),
            lost_at: Since::boot(boot),
        }
    }

    /// The same minter, except that actors continue after any stop. For tests of the tests.
    #[must_use]
    pub const fn outliving_boots(self) -> Self {
        Self { named: self.incarnation, floor: Since(0), ..self }
    }

    /// The same minter, except that actors of all boots with one number have the same names. For tests of the tests.
    #[must_use]
    pub const fn naming_boots_alike(self) -> Self {
        Self { named: self.incarnation, ..self }
    }

    /// The node for which it makes dots.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The time since which no record was lost.
    pub const fn memory(&self) -> Memory {
        Memory { incarnation: self.incarnation, since: self.lost_at }
    }

    /// Ends every actor that has begun, because some record may have lost writes of its actor.
    pub fn end_all_actors(&mut self) {
        self.floor = self.next_since();
    }

    /// The actor of `own` on this node.
    pub const fn actor(&self, own: OwnActor) -> Actor {
        Actor { node: self.node, incarnation: self.named, since: own.since }
    }

    /// Ends the record's actor if `clock` knows a later dot of it than the record does: then this node has lost some of its own writes.
    pub fn check_memory(&self, record: &mut Record, clock: &Clock) {
        if let Some(own) = record.header.own
            && clock.highest(self.actor(own)) > own.count
        {
            record.header.own = None;
        }
    }

    /// The next dot of this node on `record`, under a new actor if the old one has ended.
    ///
    /// An actor that the record or `seen` already knows is not used: its dots would pass for replaced writes. Only a forged clock names actors
    /// before they begin, or a clock from before a data directory was set back.
    pub fn mint(&mut self, record: &mut Record, seen: &Clock) -> Dot {
        let own = match record.header.own {
            Some(own) if own.since >= self.floor && own.count < u64::MAX => OwnActor { count: own.count + 1, ..own },
            _ => loop {
                let own = OwnActor { since: self.begin(), count: 1 };
                let actor = self.actor(own);
                if record.state.clock().highest(actor) == 0 && seen.highest(actor) == 0 {
                    break own;
                }
            },
        };
        record.header.own = Some(own);
        Dot { actor: self.actor(own), counter: own.count }
    }

    /// The loss of writes that a store suffered before `floor`: one number for all of its records, different from that of any loss noticed
    /// later.
    pub const fn loss_before(&self, floor: Since) -> Loss {
        self.loss(floor.0 - 1)
    }

    /// A number for a loss that was just noticed.
    pub fn lose(&mut self) -> Loss {
        let since = self.begin();
        self.lost_at = self.next_since();
        self.loss(since.0)
    }

    /// Incarnations are random and each numbers its boots anew. So a heal of one incarnation's loss does not match a loss of the next.
    const fn loss(&self, number: u64) -> Loss {
        Loss(number ^ self.incarnation.0)
    }

    fn begin(&mut self) -> Since {
        let since = self.next_since();
        self.begun += 1;
        since
    }

    const fn next_since(&self) -> Since {
        Since(Since::boot(self.boot).0 | self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy of a directory is restored twice, and both times it opens with the boot number after the one that it was copied from.
    #[test]
    fn two_boots_of_one_number_make_no_dot_twice() {
        let minter = |drawn| Minter::new(NodeId::new(1), Incarnation(1), 2, ActorsSince { boot: 2, drawn });
        let copied = Record {
            header: LocalHeader { own: Some(OwnActor { since: Since::boot(1), count: 7 }), ..LocalHeader::default() },
            ..Record::default()
        };
        let dot = |mut minter: Minter| minter.mint(&mut copied.clone(), &Clock::new());
        assert_ne!(dot(minter(1)), dot(minter(2)));
        // Each rule is needed.
        assert_eq!(dot(minter(1).naming_boots_alike()), dot(minter(2).naming_boots_alike()));
        assert_eq!(dot(minter(1).outliving_boots()), dot(minter(2).outliving_boots()));
        // After a clean stop that the peers confirm, the actor continues.
        let begun_before = minter(1).mint(&mut Record::default(), &Clock::new());
        let mut kept = Record::default();
        let mut first = minter(1);
        first.mint(&mut kept, &Clock::new());
        let actors = ActorsSince { boot: 2, drawn: 1 };
        let next = Minter::new(NodeId::new(1), Incarnation(1), 3, actors).mint(&mut kept, &Clock::new());
        assert_eq!((next.actor, next.counter), (begun_before.actor, 2));
    }
}
