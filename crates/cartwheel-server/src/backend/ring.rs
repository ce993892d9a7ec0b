//! The ring, in the form in which clients are shown it.

use std::collections::BTreeMap;

use cartwheel_core::cluster::configuration::{ConfigPhase, Home};
use cartwheel_core::cluster::membership::{View, ViewMember};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::key::Placement;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::percent;

/// The ring, with which a client can find a key's homes by itself.
#[derive(Serialize, ToSchema)]
pub struct RingForm {
    /// The version of the history that it comes from.
    version: String,
    /// How many partitions there are.
    partitions: u32,
    /// For each partition the position, among the members, of its owner: the first home to ask.
    owners: Vec<usize>,
    /// For each partition the positions of its present homes, in the order to ask them; during a reconfiguration, of the old and the new
    /// homes.
    homes: Vec<Vec<usize>>,
    /// The buckets whose keys are not placed by their whole names, percent-encoded; left out if there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    placements: BTreeMap<String, PlacementForm>,
    /// The members, by id.
    members: Vec<MemberForm>,
}

/// How a key's place on the ring follows from its name.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlacementForm {
    /// From the whole name.
    Name,
    /// From the hash slot of Redis Cluster, for clients that follow slots.
    Slot,
    /// From so many first bytes of the name, 1 to 4096: keys that begin alike lie side by side.
    Prefix(u16),
}

impl From<Placement> for PlacementForm {
    fn from(placement: Placement) -> Self {
        match placement {
            Placement::Name => Self::Name,
            Placement::Slot => Self::Slot,
            Placement::Prefix(bytes) => Self::Prefix(bytes),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct MemberForm {
    /// Its name.
    name: String,
    /// Its id, in hexadecimal.
    id: String,
    /// Its zone: the replicas of a key are in as many zones as possible.
    zone: String,
    /// Its machine.
    host: String,
    /// Its address for HTTP.
    http: String,
    /// Its address for RESP.
    resp: String,
    /// Its address for peers.
    peers: String,
}

/// The ring of a view and its configurations.
pub fn ring_of(view: &View, phases: &[ConfigPhase]) -> RingForm {
    let ring = &view.ring;
    // The view sorts members by id.
    let ids: Vec<_> = view.members().map(|member| member.member.id).collect();
    let position = |node: NodeId| ids.binary_search(&node).ok();
    // A home that is no longer a member cannot answer.
    let homes = |phase: &ConfigPhase| -> Vec<usize> {
        let present = |home: &&Home| {
            phase.latest().incarnation_of(home.node).is_none_or(|incarnation| incarnation == home.incarnation)
        };
        let mut nodes: Vec<NodeId> = Vec::new();
        for home in phase.both().flat_map(|of| of.homes_of_any()).filter(present) {
            if !nodes.contains(&home.node) {
                nodes.push(home.node);
            }
        }
        nodes.into_iter().filter_map(position).collect()
    };
    let homes: Vec<Vec<usize>> = phases.iter().map(homes).collect();
    let placed = view.emptied().map(|(bucket, form)| (bucket, form.generation.placement));
    let placed = placed.filter(|(_, placement)| *placement != Placement::Name);
    RingForm {
        version: ring.version().to_string(),
        partitions: ring.partitions().count(),
        owners: homes.iter().map(|homes| homes.first().copied().unwrap_or_default()).collect(),
        homes,
        placements: placed.map(|(bucket, placement)| (percent::encode(bucket), placement.into())).collect(),
        members: view.members().map(member).collect(),
    }
}

/// A member.
pub fn member(ViewMember { member, .. }: &ViewMember) -> MemberForm {
    MemberForm {
        name: member.name.clone(),
        id: member.id.to_string(),
        zone: member.zone.clone(),
        host: member.host.clone(),
        http: member.http_addr.clone(),
        resp: member.resp_addr.clone(),
        peers: member.peer_addr.clone(),
    }
}
