//! Records: what one node stores of one key.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::losses::{Loss, Memory};
use crate::store::gc_due::GcDue;
use crate::value::clock::Clock;
use crate::value::digest::ContentDigest;
use crate::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use crate::value::state::{Epoch, State};

/// The version of the stored form, which is raised together with [`PROTOCOL_VERSION`](crate::wire::PROTOCOL_VERSION). 2: notes are one field of the state, and the checksum is XXH3.
pub(crate) const VERSION: u8 = 2;

/// A key's state with what this node alone knows of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Never sent to anyone.
    pub header: LocalHeader,
    /// The same on every replica, sooner or later.
    pub state: State,
}

/// A node's own memory of a key. It is not replicated: another node's copy of it would be a lie.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalHeader {
    /// The actor under which this node writes the key, and how far its counter has run; none before its first write, and
    /// whenever the node's memory of the key may have a hole. It ends when the node cannot tell any more that it remembers
    /// the whole of it ([`ActorsSince`]).
    pub own: Option<OwnActor>,
    /// This node lost what it held of the key and has not merged it back, so its answers do not count.
    pub recovering: Option<Loss>,
    /// The epoch in which the record's siblings last changed.
    pub changed: Epoch,
    /// Losses of the node's store before this have left no hole in the record: it did not exist then, or was caught up since. It
    /// is compared with [`crate::config::NodeConfig::loss_floor`].
    pub recovered_since: Since,
    /// The homes that this node keeps the record for, until each has told that it holds the same (paper, section 4.6). Empty on a
    /// home.
    ///
    /// With each, since which epoch.
    pub owed: BTreeMap<NodeId, Epoch>,
    /// When the record is to be looked after, because it has something to forget; the index has an entry for that.
    pub look: Option<GcDue>,
    /// The epoch in which this node had first found expired all that is expired in it.
    pub expired_since: Option<Epoch>,
    /// The actors of which no sibling is left, where there are many and the record changes all the time.
    pub idle: Option<Idle>,
    /// What the record added to the sums of its Merkle tree; none if a build that kept no trees wrote it.
    pub content: Option<ContentDigest>,
}

/// Actors of which no sibling was left, and which are forgotten one by one ([`crate::replica::gc`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Idle {
    /// When they were noted.
    pub since: Epoch,
    /// All their dots then.
    pub noted: Clock,
    /// The dots of those that were forgotten last. They may come back from homes that have not forgotten them yet.
    pub gone: Clock,
}

impl LocalHeader {
    /// Whether the record was lost by itself, after the last loss of the whole store, and does not count yet.
    pub fn is_lost_since(&self, floor: Since) -> bool {
        self.recovering.is_some() && self.recovered_since >= floor
    }
}

/// The running actor of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnActor {
    /// When it began.
    pub since: Since,
    /// The counter of its last dot.
    pub count: u64,
}

/// Why stored bytes are not a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// The form has a version that this build does not know.
    Version(u8),
    /// The bytes are not what was stored.
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
            Self::Damaged => f.write_str("the record is damaged: a checksum does not fit its bytes"),
        }
    }
}

impl std::error::Error for RecordError {}

impl Record {
    /// A record in place of one that was there and cannot be read. The loss was noticed at or after `since`.
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

/// Since which boot a node goes on with the actors that it has begun, and the random number that this boot drew, by which they are named.
///
/// It is the present boot, unless the directory is known to be what the last boot left when it stopped, and no other copy of it can have
/// been served: only then does nothing that it has stored lack a dot that it has made. So a directory that was put back from a copy, of
/// whatever boot and at whatever time, never makes a dot that another run of it has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActorsSince {
    /// The boot's number within the incarnation.
    pub boot: u32,
    /// What it drew.
    pub drawn: u64,
}

/// Makes the dots of one boot of one node.
#[derive(Clone, Debug)]
pub struct Minter {
    node: NodeId,
    incarnation: Incarnation,
    /// By this number actors are named, in the place of the incarnation.
    named: Incarnation,
    boot: u32,
    begun: u64,
    /// Actors that began before this are not continued.
    floor: Since,
    /// When the last loss was noticed, or the boot began.
    lost_at: Since,
}

impl Minter {
    /// The minter of a boot. Boots are numbered from 1 within an incarnation, and the number is durable before the boot serves anything.
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

    /// The same with actors that outlive every stop, as a test of the tests has it.
    #[must_use]
    pub const fn outliving_boots(self) -> Self {
        Self { named: self.incarnation, floor: Since(0), ..self }
    }

    /// The same with the actors of all boots of one number named alike, as a test of the tests has it.
    #[must_use]
    pub const fn naming_boots_alike(self) -> Self {
        Self { named: self.incarnation, ..self }
    }

    /// The node that it makes them for.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Since when no record was lost.
    pub const fn memory(&self) -> Memory {
        Memory { incarnation: self.incarnation, since: self.lost_at }
    }

    /// Ends every actor that has begun: some record may have lost writes that its actor made.
    pub fn end_all_actors(&mut self) {
        self.floor = self.next_since();
    }

    /// The actor of `own` on this node.
    pub const fn actor(&self, own: OwnActor) -> Actor {
        Actor { node: self.node, incarnation: self.named, since: own.since }
    }

    /// Ends the record's actor if `clock` knows more of it than the record does: then this node has forgotten some of its
    /// own writes.
    pub fn check_memory(&self, record: &mut Record, clock: &Clock) {
        if let Some(own) = record.header.own
            && clock.highest(self.actor(own)) > own.count
        {
            record.header.own = None;
        }
    }

    /// The next dot of this node on `record`, under a new actor if the old one has ended.
    ///
    /// An actor that the record or `seen` knows already is no new one: a dot of it would pass for one that was replaced. Only a
    /// forged clock names actors before they begin, or one from before a data directory was set back.
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

    /// The loss of writes that a store suffered before `floor`: one number for all of its records, which no loss that is noticed
    /// later has.
    pub const fn loss_before(&self, floor: Since) -> Loss {
        self.loss(floor.0 - 1)
    }

    /// A number for a loss that was just noticed.
    pub fn lose(&mut self) -> Loss {
        let since = self.begin();
        self.lost_at = self.next_since();
        self.loss(since.0)
    }

    /// Incarnations are random numbers, so what was to heal a loss of the one does not heal a loss of the next, which counts its boots anew.
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

    /// A copy of a directory is put back twice, and both times it opens as the boot that follows the one that it was copied from.
    #[test]
    fn two_boots_of_one_number_make_no_dot_twice() {
        let minter = |drawn| Minter::new(NodeId::new(1), Incarnation(1), 2, ActorsSince { boot: 2, drawn });
        let copied = Record {
            header: LocalHeader { own: Some(OwnActor { since: Since::boot(1), count: 7 }), ..LocalHeader::default() },
            ..Record::default()
        };
        let dot = |mut minter: Minter| minter.mint(&mut copied.clone(), &Clock::new());
        assert_ne!(dot(minter(1)), dot(minter(2)));
        // So each rule is needed.
        assert_eq!(dot(minter(1).naming_boots_alike()), dot(minter(2).naming_boots_alike()));
        assert_eq!(dot(minter(1).outliving_boots()), dot(minter(2).outliving_boots()));
        // A stop in order that the peers confirm: the actor goes on.
        let begun_before = minter(1).mint(&mut Record::default(), &Clock::new());
        let mut kept = Record::default();
        let mut first = minter(1);
        first.mint(&mut kept, &Clock::new());
        let actors = ActorsSince { boot: 2, drawn: 1 };
        let next = Minter::new(NodeId::new(1), Incarnation(1), 3, actors).mint(&mut kept, &Clock::new());
        assert_eq!((next.actor, next.counter), (begun_before.actor, 2));
    }
}
