//! Settings of a node at its start.

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
use crate::wire::Protocol;
use crate::wire::context::{ClusterKey, SINGLES_MAX};

/// Intervals and delays of a node.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a read waits for responses before it sends a request to one more replica (hedging).
    pub hedge_after: Duration,
    /// How long a write waits for a replica before it sends again.
    pub resend_after: Duration,
    /// How long a node waits for the coordinator it forwarded a request to before it tries another.
    pub forward_after: Duration,
    /// How often a node runs an exchange of each of its partitions with each other home. `None`: it keeps no trees and runs none.
    pub exchange_every: Option<Duration>,
    /// The pause between two parts of a background scan.
    pub scan_pause: Duration,
    /// The 99th percentile of clients' requests that background work must not exceed.
    pub background_p99_target: Duration,
    /// The period in which a node scans all its records, for damage and for wrong trees.
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

/// Limits on the work a node accepts. Work over a limit is refused at once, and the request can be retried.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests that it coordinates or has forwarded.
    pub operations_max: usize,
    /// Replica tasks that wait for the store.
    pub tasks_max: usize,
    /// Siblings of a key. At this number a put that would add one is refused.
    pub siblings_max: usize,
    /// Bytes of a key's siblings. A put that would exceed it is refused. A state must fit into one message even when it is merged from states
    /// that many coordinators accepted separately, each up to this bound.
    pub sibling_bytes_max: usize,
    /// Single dots beyond gaps that a context may name ([`crate::wire::context::SINGLES_MAX`]).
    pub context_singles_max: usize,
    /// Actors without a sibling that the record of a busy key may name. Above it, ended actors are collected one by one.
    pub idle_actors_max: usize,
    /// Bytes of records kept for other nodes. At this size no more hints are accepted.
    pub hint_bytes_max: u64,
    /// Bytes of decoded records that are kept in memory.
    pub record_cache_bytes: usize,
    /// Average number of keys in a leaf of a Merkle tree. Above it the tree grows deeper.
    pub leaf_keys_max: u32,
}

/// The bytes that a key's siblings may take together at one coordinator: two values of the largest size.
pub const SIBLING_BYTES_MAX: usize = 2 * (VALUE_BYTES_MAX as usize + VALUE_HEAD_BYTES);

/// The most that a value takes besides its bytes. A media type comes in a request's head, which has at most 64 KiB.
const VALUE_HEAD_BYTES: usize = 80 << 10;

impl Limits {
    /// The limits of a node that has no others.
    pub const DEFAULT: Self = Self {
        operations_max: 10_000,
        tasks_max: 50_000,
        siblings_max: 128,
        sibling_bytes_max: SIBLING_BYTES_MAX,
        context_singles_max: SINGLES_MAX,
        idle_actors_max: 8,
        hint_bytes_max: u64::MAX,
        record_cache_bytes: 16 << 20,
        leaf_keys_max: 64,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Settings and durable state with which a node starts.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The cluster's secret for contexts.
    pub cluster_key: ClusterKey,
    /// Its id.
    pub node: NodeId,
    /// Drawn when its data directory was made.
    pub incarnation: Incarnation,
    /// How often the directory has been opened, including this time. It is durable before the node is created.
    pub boot: u32,
    /// The node's shard.
    pub shard_id: ShardId,
    /// The store may lack writes made before this: [`Since::boot`] of the last boot after a loss of writes. A loss is an unclean stop of a store
    /// that does not sync each write, or the first boot of an incarnation that was not there when the cluster was bootstrapped (its disk is
    /// empty where the earlier incarnation's was not). Zero if there was no loss. It is kept for all later boots. What the store holds or lacks
    /// does not count until the node has recovered, key by key.
    pub loss_floor: Since,
    /// When this node acknowledges a write, in buckets that leave that to their nodes.
    pub durability: Durability,
    /// The actors that it continues.
    pub actors: ActorsSince,
    /// The seed of its randomness, drawn for this boot. No other boot may share it, nor another run of this boot from a copy of the directory:
    /// it distinguishes their operations.
    pub seed: u64,
    /// Its intervals and delays.
    pub timing: Timing,
    /// Its limits.
    pub limits: Limits,
    /// Its states of the shard's partitions, as the store holds them ([`crate::reconfiguration::partition_state_name`]).
    pub partition_states: Vec<(PartitionId, PartitionState)>,
    /// Its records of other nodes' losses, as the store holds them under [`crate::store::loss_book::NAME`].
    pub losses: LossBook,
    /// The last durable epoch; [`Epoch::UNKNOWN`] in an incarnation that has not heard of any.
    pub epoch: Epoch,
    /// The version of the protocol that all members support, as far as it is durable ([`crate::node::Input::AllSpeak`]).
    pub all_speak: Protocol,
    /// The protocol rule that is broken on purpose; none outside tests of the tests.
    pub broken: Broken,
}
