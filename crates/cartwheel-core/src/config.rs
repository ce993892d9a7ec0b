//! What a node is told at its start.

use std::time::Duration;

use crate::cluster::membership::{Durability, VALUE_BYTES_MAX};
use crate::cluster::partition_state::PartitionState;
use crate::cluster::shard_id::ShardId;
use crate::mutation::Broken;
use crate::ring::PartitionId;
use crate::store::loss_book::LossBook;
use crate::store::record::ActorsSince;
use crate::value::cluster_id::ClusterId;
use crate::value::dot::{Incarnation, NodeId, Since};
use crate::value::epoch::Epoch;
use crate::wire::context::{ClusterKey, SINGLES_MAX};

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
    /// Single dots beyond gaps that a context names ([`crate::wire::context::SINGLES_MAX`]).
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

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The cluster's secret for contexts.
    pub cluster_key: ClusterKey,
    /// Who it is.
    pub node: NodeId,
    /// Drawn when its data directory was made.
    pub incarnation: Incarnation,
    /// How often the directory has been opened, this time included. It is durable before the node is made.
    pub boot: u32,
    /// Which of the node's shards this is.
    pub shard_id: ShardId,
    /// What the store held before this may have holes: [`Since::boot`] of the last boot that came after a loss of writes (an unclean
    /// stop of a store that does not sync each write), of the first boot of an incarnation that was not there when the cluster was founded
    /// (its disk is empty where that of the incarnation before was not), zero if there was no loss. It is kept for all later boots. What the
    /// store holds, or does not hold, does not count until it is caught up, key by key.
    pub loss_floor: Since,
    /// When this node acknowledges a write, in buckets that leave that to their nodes.
    pub durability: Durability,
    /// Which of its actors it goes on with.
    pub actors: ActorsSince,
    /// Where its randomness starts, drawn for this boot: no other boot may share it, nor another run of this one from a copy of the
    /// directory, for it tells their operations apart.
    pub seed: u64,
    /// How long it waits for what.
    pub timing: Timing,
    /// How much it takes on.
    pub limits: Limits,
    /// Its partition states in partitions of the shard, as the store holds them ([`crate::reconfiguration::partition_state_name`]).
    pub partition_states: Vec<(PartitionId, PartitionState)>,
    /// What it was told of other nodes' losses, as the store holds it under [`crate::store::loss_book::NAME`].
    pub losses: LossBook,
    /// The last epoch that is durable; [`Epoch::UNKNOWN`] in an incarnation that has not heard of any.
    pub epoch: Epoch,
    /// Which rule of the protocol is broken on purpose; none, but in a test of the tests.
    pub broken: Broken,
}
