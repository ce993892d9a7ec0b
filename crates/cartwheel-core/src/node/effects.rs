//! What goes into a node's step and what comes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::anti_entropy::merkle::TreeId;
use crate::cluster::configuration::Phase;
use crate::cluster::liveness::Liveness;
use crate::cluster::membership::{VALUE_BYTES_MAX, View};
use crate::message::Envelope;
use crate::message::client::{Outcome, Request};
use crate::replica::hint::Backlog;
use crate::ring::PartitionId;
use crate::store::record::RecordError;
use crate::value::context::SINGLES_MAX;
use crate::value::dot::NodeId;
use crate::value::epoch::Epoch;
use crate::value::key::Key;
use crate::value::time::Instant;
use crate::wire::Protocol;

/// How long a node waits before it acts.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a read waits for the replicas it asked before it asks another as well.
    pub hedge_after: Duration,
    /// How long a write waits for a replica before it sends again.
    pub resend_after: Duration,
    /// How long a node waits for the coordinator it forwarded a request to before it tries another.
    pub forward_after: Duration,
    /// How often a node compares each of its partitions with each other home; none if it keeps no trees and compares nothing.
    pub exchange_every: Option<Duration>,
    /// How long a scan in the background leaves the store alone between two parts.
    pub scan_pause: Duration,
    /// How far background work may push the 99th percentile of clients' requests.
    pub background_p99_target: Duration,
    /// In what time a node scans all that it holds, to find what is damaged and trees that are wrong.
    pub scrub_every: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            hedge_after: Duration::from_millis(25),
            resend_after: Duration::from_millis(250),
            forward_after: Duration::from_millis(1_000),
            exchange_every: Some(Duration::from_secs(20)),
            scan_pause: Duration::from_millis(5),
            background_p99_target: Duration::from_millis(50),
            scrub_every: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// How much a node takes on at once. What is over a limit is refused at once and can be tried again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that it coordinates or has forwarded.
    pub operations_max: usize,
    /// Replica tasks that wait for its store.
    pub tasks_max: usize,
    /// Siblings on a key beyond which a put is refused that would add one.
    pub siblings_max: usize,
    /// The bytes in a key's siblings beyond which a put is refused that would make them larger. A state must fit into one message,
    /// also when it was joined from what many coordinators took on apart, each up to this bound.
    pub sibling_bytes_max: usize,
    /// Single dots beyond gaps that a context names ([`crate::value::context::SINGLES_MAX`]).
    pub context_singles_max: usize,
    /// Actors without a sibling that a record may name that changes all the time, before those are forgotten one by one that have ended.
    pub idle_actors_max: usize,
    /// The bytes of records that are kept for other nodes beyond which no more are taken on.
    pub hint_bytes_max: u64,
    /// Keys in a leaf of a Merkle tree, on average, beyond which the tree grows deeper.
    pub leaf_keys_max: u32,
}

/// The bytes that a key's siblings may have together at one coordinator: two values of the largest size.
pub const SIBLING_BYTES_MAX: usize = 2 * (VALUE_BYTES_MAX as usize + VALUE_HEAD_BYTES);

/// What a value takes besides its bytes, at most: a media type comes in a head of a request, which has 64 KiB.
const VALUE_HEAD_BYTES: usize = 80 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations_max: 10_000,
            tasks_max: 50_000,
            siblings_max: 128,
            sibling_bytes_max: SIBLING_BYTES_MAX,
            context_singles_max: SINGLES_MAX,
            idle_actors_max: 8,
            hint_bytes_max: u64::MAX,
            leaf_keys_max: 64,
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks. The caller chooses an id that is not in use; the reply names it.
    Client(ClientId, Request),
    /// A peer's message has arrived.
    Message(Envelope),
    /// A store command has ended.
    Stored(StoreId, StoreResult),
    /// The wish and the settings to go by from now on.
    View(Arc<View>),
    /// What holds in partitions of this shard, as others know it.
    Phases(Vec<(PartitionId, Phase)>),
    /// What to think of the other nodes from now on.
    Liveness(Arc<Liveness>),
    /// The epoch from now on. It is durable, and no earlier than the one before.
    Epoch(Epoch),
    /// All members speak this version of the protocol, and this node's disk says so: what came with it may be used.
    AllSpeak(Protocol),
    /// The time of [`Effects::wake_at`] has come. A tick too many does no harm.
    Tick,
    /// The node stops in order: it says what it wants to remember, and nothing may follow but the ends of what it has begun.
    Stop,
}

/// A client's request, as its caller numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientId(pub u64);

/// A store command, as the node numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoreId(pub u64);

/// What is to be done after a step.
///
/// The parts may be carried out in any order and at the same time: whatever must wait until something is stored is told only by
/// the step that takes in [`Input::Stored`]. Store commands on one key take effect in the order given, and a scan sees all writes that
/// were given before it and none that came after. A message may be lost,
/// repeated or late.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to peers.
    pub sends: Vec<(NodeId, Envelope)>,
    /// Answers to clients; each request gets exactly one.
    pub replies: Vec<(ClientId, Outcome)>,
    /// Commands to the store; each is answered by exactly one [`Input::Stored`].
    pub stores: Vec<(StoreId, StoreCommand)>,
    /// What an operator or a metric should know.
    pub events: Vec<Event>,
    /// The shard has finished this epoch ([`crate::value::epoch`]).
    pub finished: Option<Epoch>,
    /// The shard holds nothing any more that its node, which is leaving, is to hand over; or it does.
    pub drained: Option<bool>,
    /// What holds from now on in partitions, as far as this node knows, for others to hear.
    pub phases: Vec<(PartitionId, Phase)>,
    /// When the node wants a [`Input::Tick`] at the latest. It replaces what the step before said.
    pub wake_at: Option<Instant>,
}

/// What a node asks of its store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreCommand {
    /// Read the record stored under a key; answered by [`StoreResult::Read`].
    Read {
        /// [`Key::storage_key`].
        storage_key: Bytes,
    },
    /// Store a record or remove it, and change the index, all or nothing; answered by [`StoreResult::Written`].
    Write {
        /// [`Key::storage_key`].
        storage_key: Bytes,
        /// The bytes to be stored; none if nothing is to be there any more.
        record: Option<Bytes>,
        /// What else changes with it.
        index: Vec<IndexChange>,
        /// Whether the answer is to say that it survives a power failure.
        sync: bool,
    },
    /// Read the records from a key on, in the order of their keys; answered by [`StoreResult::Scanned`].
    Scan {
        /// Where to begin, itself included.
        from: Bytes,
        /// Where to end, left out; none if all that follow are wanted.
        upto: Option<Bytes>,
        /// How many records and how many bytes of them to read at most; of records larger than that, one.
        at_most: ScanLimit,
    },
    /// Read the index from an entry on, in order; answered by [`StoreResult::Listed`].
    ScanIndex {
        /// Where to begin, itself included.
        from: Bytes,
        /// Where to end, left out.
        upto: Bytes,
        /// How many entries to read at most.
        entries_max: usize,
    },
    /// Keep a value under a name, synced; answered by [`StoreResult::Written`].
    Remember {
        /// The name.
        name: Bytes,
        /// The value; an empty one is as good as none.
        value: Bytes,
    },
    /// Read what is kept under a name; answered by [`StoreResult::Read`].
    Recall {
        /// The name.
        name: Bytes,
    },
}

/// A change of the index: an ordered set of byte strings beside the records, by which a node finds records that it owes something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IndexChange {
    /// This entry is to be there.
    Add(Bytes),
    /// It is not.
    Remove(Bytes),
}

/// How much one scan reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanLimit {
    /// Records.
    pub records: usize,
    /// Bytes of records.
    pub bytes: usize,
}

/// What a scan has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scanned {
    /// Storage keys and records, in order.
    pub records: Vec<(Bytes, Bytes)>,
    /// The storage keys in between whose records the store finds damaged.
    pub damaged: Vec<Bytes>,
    /// Whether nothing follows in the range.
    pub is_all: bool,
}

impl Scanned {
    /// Where the range goes on; none if nothing follows.
    pub fn next(&self) -> Option<Bytes> {
        let last = self.records.last().map(|(key, _)| key).max(self.damaged.last());
        let after = |last: &Bytes| [last.as_ref(), &[0]].concat().into();
        if self.is_all { None } else { last.map(after) }
    }
}

/// How a store command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreResult {
    /// The bytes that were stored, if any were.
    Read(Result<Option<Bytes>, ReadFailed>),
    /// The records that were found.
    Scanned(Result<Scanned, ReadFailed>),
    /// The entries of the index that were found, in order.
    Listed(Result<Vec<Bytes>, ReadFailed>),
    /// It is stored, and synced if that was asked.
    Written(Result<(), WriteFailed>),
}

/// Why the store could not read a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFailed {
    /// The store does not answer. What it holds may be whole, so a later read may succeed.
    Unreadable,
    /// A record was there and is not what was stored: it is lost, as one whose own checksum does not fit.
    Damaged,
}

/// Why the store did not carry out a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFailed {
    /// It may have been stored or not. Whichever it is must stay so: what a read returns after it has to survive a power
    /// failure.
    Uncertain,
    /// There is no room. Nothing was stored, and nothing of it will be.
    DiskFull,
}

/// How a replica that was behind was found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Repair {
    /// A client's request met it.
    Read,
    /// It had told of a loss.
    Heal,
    /// It was compared with another.
    Exchange,
}

impl Repair {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Heal => "heal",
            Self::Exchange => "exchange",
        }
    }
}

/// What an operator or a metric should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// One dot came with two contents: a disk is broken or a message was forged.
    DotCollision(Key),
    /// A stored record cannot be read: it is healed from the other replicas.
    RecordLost(Key, RecordError),
    /// A stored record is one of a newer build. It stays as it is, and nothing is done on it here.
    RecordNotKnown(Key, RecordError),
    /// A replica was behind and was sent what it lacked.
    Repaired(Key, NodeId, Repair),
    /// The replicas of a partition here and at a peer were compared and are equal, or were made so.
    Exchanged(TreeId, NodeId),
    /// A comparison did not come to its end, and is tried again.
    ExchangeFailed(TreeId, NodeId),
    /// Records were handed out to a node that is to be their home.
    TransferSent {
        /// How many.
        records: u64,
        /// Their bytes, as this node stores them.
        bytes: u64,
    },
    /// Records came that this node is to be a home of.
    TransferReceived {
        /// Their partition.
        partition: PartitionId,
        /// How many.
        records: u64,
        /// Their bytes, as the node stores them that sent them.
        bytes: u64,
    },
    /// A peer asked about a partition that it does not share, or said what makes no sense; it was refused.
    ExchangeRefused(NodeId),
    /// A partition's Merkle tree was not what its records add up to; it was made anew.
    TreeWrong(PartitionId),
    /// So many partitions' Merkle trees are being made, and so long take no part in comparisons.
    TreesUnready {
        /// As it was last told.
        before: usize,
        /// As it is.
        now: usize,
    },
    /// So many digests of keys or of ranges of keys were sent to peers, in comparisons.
    DigestsSent(usize),
    /// This node's clock is off its peers', by this much; it takes no writes while `refuses`.
    ClockOff {
        /// The median peer's clock less this node's, in milliseconds; 0 once it is off no longer.
        offset_ms: i64,
        /// Whether writes are refused.
        refuses: bool,
    },
    /// Writes got timestamps this far ahead of this node's wall clock of late, because they had to win over what was held; an operator should know
    /// that clocks were wrong.
    TimestampsAhead {
        /// By how many milliseconds at most; 0 once it happens no longer.
        ahead_ms: u64,
    },
    /// A record was looked after; so many tombstones and expired values went from it.
    Forgot(u64),
    /// State of a peer's was refused because its stamp is too old.
    StaleRefused(NodeId),
    /// A message of another cluster, or of a node that is no member; it was dropped.
    StrayMessage(NodeId),
    /// What is kept here for a home has changed.
    HintsHeld {
        /// The home.
        home: NodeId,
        /// As it was last told.
        before: Backlog,
        /// As it is.
        now: Backlog,
    },
    /// As much is kept here for other nodes as may be, or no longer so much.
    HintsFull {
        /// Which of the two.
        is_full: bool,
        /// How many bytes may be kept.
        bytes_max: u64,
    },
    /// A home has stored what was kept here for it.
    HintDelivered(NodeId),
    /// A peer wanted a key read or stored of which this node is no home, nor the other in whose place it was to be kept; it was refused.
    NotAHome(NodeId),
}
