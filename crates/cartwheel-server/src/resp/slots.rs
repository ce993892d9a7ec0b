//! Hash slots for clients of Redis Cluster: which nodes hold the keys of each slot.
//!
//! A bucket whose keys are placed by slot is shown as a Redis Cluster of its own. Each replica of a slot is a node that a client may ask; the first
//! in reach is called the master. A client asks for the map when a connection fails, and gives up after a few tries: what this node knows of a
//! failure is in the map at once. A client that goes by the map needs no node between it and a replica: it is the paper's client-driven coordination
//! (section 6.4).

use std::fmt;

use cartwheel_core::cluster::membership::Member;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::hash_slot::HASH_SLOTS;
use cartwheel_core::value::key::Placement;
use cartwheel_core::value::token::Token;

use crate::backend::Backend;

/// Slots in a row that have the same replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    /// The replicas, in the order in which to ask them.
    pub(super) replicas: Vec<NodeId>,
}

/// Whether a bucket's keys are placed by slot, so that cluster clients can use it.
pub(super) fn is_slotted(backend: &Backend, bucket: &[u8]) -> bool {
    backend.view.borrow().form(bucket).generation.placement == Placement::Slot
}

/// The nodes that hold the keys of a slot in a bucket: those in reach first, and of these the ones that drain last. Without nodes that serve no
/// Redis clients.
pub(super) fn replicas(backend: &Backend, bucket: &[u8], slot: u16) -> Vec<NodeId> {
    let mut nodes = backend.homes_of(bucket, Token::of_slot(slot));
    let view = backend.view.borrow();
    nodes.retain(|&node| view.member(node).is_some_and(|known| !known.member.resp_addr.is_empty()));
    nodes.sort_by_key(|&node| (!backend.is_in_reach(node), backend.is_draining(node)));
    nodes
}

/// All slots of a bucket.
pub(super) fn map(backend: &Backend, bucket: &[u8]) -> Vec<SlotRange> {
    let mut ranges: Vec<SlotRange> = Vec::new();
    let partitions = backend.view.borrow().ring.partitions();
    let mut known = None;
    for slot in 0..HASH_SLOTS {
        let partition = partitions.of(Token::of_slot(slot));
        let replicas = match known.take() {
            Some((of, replicas)) if of == partition => replicas,
            _ => replicas(backend, bucket, slot),
        };
        match ranges.last_mut() {
            Some(range) if range.replicas == replicas => range.last = slot,
            _ => ranges.push(SlotRange { first: slot, last: slot, replicas: replicas.clone() }),
        }
        known = Some((partition, replicas));
    }
    ranges.retain(|range| !range.replicas.is_empty());
    ranges
}

/// A node as cluster clients know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SlotNode {
    /// Its id in the form that Redis has for ids: 40 hexadecimal digits.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether there is no sign that it cannot be reached.
    pub(super) is_alive: bool,
}

impl fmt::Display for SlotNode {
    /// The address as `MOVED` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A member as cluster clients know it; none if it serves no Redis clients.
pub(super) fn node(backend: &Backend, of: NodeId) -> Option<SlotNode> {
    let view = backend.view.borrow();
    let Member { name, resp_addr, .. } = &view.member(of)?.member;
    let (host, port) = resp_addr.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let id = blake3::hash(name.as_bytes()).to_hex()[..40].to_owned();
    let port = port.parse().ok()?;
    Some(SlotNode { id, name: name.clone(), host: host.to_owned(), port, is_alive: backend.is_in_reach(of) })
}

/// All members that serve Redis clients.
pub(super) fn nodes(backend: &Backend) -> Vec<(NodeId, SlotNode)> {
    let ids: Vec<NodeId> = backend.view.borrow().members().map(|known| known.member.id).collect();
    ids.into_iter().filter_map(|id| Some((id, node(backend, id)?))).collect()
}
