//! CLUSTER: the map of slots for clients that follow it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::hash_slot::{HASH_SLOTS, hash_slot};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::position::Position;
use cartwheel_core::value::token::Token;

use super::Call;
use crate::resp::error::{CommandError, NOT_AN_INTEGER};
use crate::resp::parser::integer;
use crate::resp::reply::Reply;
use crate::resp::slots::{self, SlotNode, SlotRange};

/// How many keys of a slot are listed at once.
const PAGE: usize = 1_000;
/// What lies between a Redis node's port for clients and that for its cluster, which clients do not use.
const BUS_PORT_ABOVE: u16 = 10_000;

pub(super) async fn cluster(call: Call) -> Result<Reply, CommandError> {
    let subcommand = call.command.get(1).to_ascii_uppercase();
    if let (b"KEYSLOT", 3) = (&subcommand[..], call.command.len()) {
        return Ok(Reply::Integer(hash_slot(call.command.get(2)).into()));
    }
    if !slots::is_slotted(call.db.api.backend(), &call.db.bucket) {
        return Err(CommandError::other("This instance has cluster support disabled"));
    }
    match (&subcommand[..], call.command.len()) {
        (b"SLOTS", 2) => Ok(slot_ranges(&call)),
        (b"SHARDS", 2) => Ok(shards(&call)),
        (b"NODES", 2) => Ok(Reply::Verbatim(nodes(&call))),
        (b"INFO", 2) => Ok(Reply::Verbatim(info(&call))),
        (b"MYID", 2) => Ok(Reply::text(own(&call)?.id)),
        (b"COUNTKEYSINSLOT", 3) => {
            let keys = keys_in_slot(&call, slot(call.command.get(2))?, usize::MAX).await?;
            Ok(Reply::Integer(keys.len() as i64))
        }
        (b"GETKEYSINSLOT", 4) => {
            let count = integer(call.command.get(3)).and_then(|count| usize::try_from(count).ok());
            let count = count.ok_or_else(|| CommandError::other("Invalid number of keys"))?;
            let keys = keys_in_slot(&call, slot(call.command.get(2))?, count).await?;
            Ok(Reply::Array(keys.into_iter().map(|key| Reply::Bulk(key.name().clone())).collect()))
        }
        (b"HELP", 2) => Ok(Reply::texts([
            "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "COUNTKEYSINSLOT <slot>",
            "    Return the number of keys in <slot>.",
            "GETKEYSINSLOT <slot> <count>",
            "    Return key names in <slot>.",
            "INFO",
            "    Return information about the cluster.",
            "KEYSLOT <key>",
            "    Return the hash slot for <key>.",
            "MYID",
            "    Return the node id.",
            "NODES",
            "    Return cluster configuration seen by node.",
            "SHARDS",
            "    Return information about slot range mappings and the nodes associated with them.",
            "SLOTS",
            "    Return information about slots range mappings.",
            "HELP",
            "    Print this help.",
        ])),
        _ => Err(super::unknown_subcommand(&call.command, "CLUSTER")),
    }
}

fn slot(text: &[u8]) -> Result<u16, CommandError> {
    let slot = integer(text).ok_or(NOT_AN_INTEGER)?;
    let slot = u16::try_from(slot).ok().filter(|&slot| slot < HASH_SLOTS);
    slot.ok_or_else(|| CommandError::other("Invalid slot"))
}

fn map(call: &Call) -> Vec<SlotRange> {
    slots::map(call.db.api.backend(), &call.db.bucket)
}

fn node(call: &Call, id: NodeId) -> Option<SlotNode> {
    slots::node(call.db.api.backend(), id)
}

fn own(call: &Call) -> Result<SlotNode, CommandError> {
    let id = call.db.api.backend().local.node;
    node(call, id).ok_or_else(|| CommandError::other("this node is no member of the cluster yet: try again"))
}

fn slot_ranges(call: &Call) -> Reply {
    let replica = |SlotNode { id, host, port, .. }: SlotNode| {
        Reply::Array(vec![Reply::text(host), Reply::Integer(port.into()), Reply::text(id), Reply::Array(Vec::new())])
    };
    let range = |range: SlotRange| {
        let ends = [Reply::Integer(range.first.into()), Reply::Integer(range.last.into())];
        // Redis leaves out failed replicas too. Of nodes that all seem to have failed, a client may find one that has not.
        let (alive, failed): (Vec<_>, Vec<_>) =
            range.replicas.iter().filter_map(|&id| node(call, id)).partition(|node| node.is_alive);
        let replicas = if alive.is_empty() { failed } else { alive }.into_iter().map(replica);
        Reply::Array(ends.into_iter().chain(replicas).collect())
    };
    Reply::Array(map(call).into_iter().map(range).collect())
}

/// Slots with the same replicas in the same order are one shard.
fn shards(call: &Call) -> Reply {
    let mut shards = BTreeMap::<Vec<NodeId>, Vec<(u16, u16)>>::new();
    for range in map(call) {
        shards.entry(range.replicas).or_default().push((range.first, range.last));
    }
    let entry = |name: &'static str, value| (Reply::text(name), value);
    let shard = |(replicas, ranges): (Vec<NodeId>, Vec<(u16, u16)>)| {
        let ends = ranges.into_iter().flat_map(|(first, last)| [first, last]);
        let nodes = replicas.iter().filter_map(|&id| node(call, id)).enumerate().map(|(place, node)| {
            Reply::Map(vec![
                entry("id", Reply::text(node.id)),
                entry("port", Reply::Integer(node.port.into())),
                entry("ip", Reply::text(node.host.clone())),
                entry("endpoint", Reply::text(node.host)),
                entry("role", Reply::text(if place == 0 { "master" } else { "replica" })),
                entry("replication-offset", Reply::Integer(0)),
                entry("health", Reply::text(if node.is_alive { "online" } else { "fail" })),
            ])
        });
        Reply::Map(vec![
            entry("slots", Reply::Array(ends.map(|end| Reply::Integer(end.into())).collect())),
            entry("nodes", Reply::Array(nodes.collect())),
        ])
    };
    Reply::Array(shards.into_iter().map(shard).collect())
}

/// One line for each node. Each is a master of the slots for which it is asked first: here a replica can have one master only.
fn nodes(call: &Call) -> String {
    let backend = call.db.api.backend();
    let mut firsts = BTreeMap::<NodeId, Vec<(u16, u16)>>::new();
    for range in map(call) {
        firsts.entry(range.replicas[0]).or_default().push((range.first, range.last));
    }
    let mut text = String::new();
    for (id, node) in slots::nodes(backend) {
        let myself = if id == backend.local.node { "myself," } else { "" };
        let fail = if node.is_alive { "" } else { ",fail" };
        let link = if node.is_alive { "connected" } else { "disconnected" };
        let bus = node.port.saturating_add(BUS_PORT_ABOVE);
        let _ = write!(text, "{} {node}@{bus},{} {myself}master{fail} - 0 0 1 {link}", node.id, node.name);
        for (first, last) in firsts.remove(&id).unwrap_or_default() {
            let _ = if first == last { write!(text, " {first}") } else { write!(text, " {first}-{last}") };
        }
        text.push('\n');
    }
    text
}

fn info(call: &Call) -> String {
    let map = map(call);
    let assigned: u32 = map.iter().map(|range| u32::from(range.last - range.first) + 1).sum();
    let nodes = slots::nodes(call.db.api.backend());
    let is_alive =
        |range: &&SlotRange| range.replicas.iter().any(|&id| node(call, id).is_some_and(|node| node.is_alive));
    let alive: u32 = map.iter().filter(is_alive).map(|range| u32::from(range.last - range.first) + 1).sum();
    let state = if alive == u32::from(HASH_SLOTS) { "ok" } else { "fail" };
    let masters: std::collections::BTreeSet<NodeId> = map.iter().map(|range| range.replicas[0]).collect();
    let fields = [
        ("cluster_state", state.to_owned()),
        ("cluster_slots_assigned", assigned.to_string()),
        ("cluster_slots_ok", alive.to_string()),
        ("cluster_slots_pfail", "0".to_owned()),
        ("cluster_slots_fail", (assigned - alive).to_string()),
        ("cluster_known_nodes", nodes.len().to_string()),
        ("cluster_size", masters.len().to_string()),
        ("cluster_current_epoch", "1".to_owned()),
        ("cluster_my_epoch", "1".to_owned()),
    ];
    fields.into_iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect()
}

/// The first keys of a slot.
async fn keys_in_slot(call: &Call, slot: u16, count: usize) -> Result<Vec<Key>, CommandError> {
    let slot_of = |place: &Position| (place.token_bits() >> 50) as u16;
    let mut after = Some(Position::of_token_bits((Token::of_slot(slot).position() >> 64) as u64));
    let mut keys = Vec::new();
    while let Some(from) = after.take().filter(|from| slot_of(from) == slot && keys.len() < count) {
        let page = call.db.keys(from, PAGE.min(count - keys.len())).await?;
        keys.extend(page.keys.into_iter().filter(|key| hash_slot(key.name()) == slot));
        after = page.next;
    }
    Ok(keys)
}
