//! The clockwise walk from a partition: the order in which nodes are chosen to hold its keys (paper, section 4.3).
//!
//! Each node occurs once. A zone or a host repeats only when no new one is left. The next node is one whose zone was used least so far, among
//! those one whose host was used least, and among those the one that the walk meets first.
//!
//! To find it without searching the ring, zones, hosts of a zone and nodes of a host are kept in the order in which the walk meets them first.
//! The partitions are swept backwards, and each step moves one node, its host and its zone to the front.
//!
//! Every node of weight above 0 is on every walk. A node that owns no partition (its share is less than one) comes after all owners: the walk
//! continues on a second round, where such a node stands at a partition derived from its id. Otherwise a list would end early, and keys would
//! have fewer replicas than there are nodes for them.

use super::layout::mix;
use super::topology::Topology;

const NIL: u32 = u32::MAX;

/// Several lists of numbers, each number in at most one list, with constant-time moves to the front.
struct Lists {
    head: Vec<u32>,
    next: Vec<u32>,
    prev: Vec<u32>,
    linked: Vec<bool>,
}

impl Lists {
    fn new(lists: usize, items: usize) -> Self {
        Self { head: vec![NIL; lists], next: vec![NIL; items], prev: vec![NIL; items], linked: vec![false; items] }
    }

    /// Moves `item` to the front of `list`, or puts it there.
    fn bring_forward(&mut self, list: u32, item: u32) {
        let (at, list) = (item as usize, list as usize);
        if self.head[list] == item {
            return;
        }
        if self.linked[at] {
            // It is not the head, so something comes before it.
            let (before, after) = (self.prev[at], self.next[at]);
            self.next[before as usize] = after;
            if after != NIL {
                self.prev[after as usize] = before;
            }
        }
        let old = self.head[list];
        self.next[at] = old;
        self.prev[at] = NIL;
        if old != NIL {
            self.prev[old as usize] = item;
        }
        self.head[list] = item;
        self.linked[at] = true;
    }

    fn iter(&self, list: u32) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.head[list as usize];
        std::iter::from_fn(move || {
            let item = (at != NIL).then_some(at)?;
            at = self.next[item as usize];
            Some(item)
        })
    }
}

/// Lists in two parts: items met on the walk's first round, then those met on its second.
struct Rounds {
    first: Lists,
    second: Lists,
}

impl Rounds {
    fn new(lists: usize, items: usize) -> Self {
        Self { first: Lists::new(lists, items), second: Lists::new(lists, items) }
    }

    fn iter(&self, list: u32) -> impl Iterator<Item = u32> + '_ {
        self.first.iter(list).chain(self.second.iter(list))
    }

    /// The first item of a non-empty list.
    fn head(&self, list: u32) -> u32 {
        match self.first.head[list as usize] {
            NIL => self.second.head[list as usize],
            head => head,
        }
    }
}

/// Greater than any position on the first round.
const SECOND_ROUND: i64 = 1 << 40;

/// The state of the backward sweep, and of one walk from its position.
pub(super) struct Sweep<'a> {
    topology: &'a Topology,
    /// The owners of all partitions.
    owners: &'a [u32],
    /// Positions of nodes without a partition on the second round: partition and node, the last first.
    second: Vec<(usize, u32)>,
    zones: Rounds,
    hosts: Rounds,
    nodes: Rounds,
    /// The position at which the walk meets each node first. Only differences matter.
    met_at: Vec<i64>,
    now: i64,
    zone_size: Vec<u32>,
    host_size: Vec<u32>,
    zone_uses: Vec<u32>,
    host_uses: Vec<u32>,
    taken: Vec<bool>,
}

impl<'a> Sweep<'a> {
    /// A sweep at partition 0 of a ring with these owners.
    pub fn new(topology: &'a Topology, owners: &'a [u32]) -> Self {
        let (nodes, hosts, zones) = (topology.len(), topology.zone_of_host.len(), topology.zones);
        let mut sweep = Self {
            topology,
            owners,
            second: Vec::new(),
            zones: Rounds::new(1, zones),
            hosts: Rounds::new(zones, hosts),
            nodes: Rounds::new(hosts, nodes),
            met_at: vec![0; nodes],
            now: 0,
            zone_size: vec![0; zones],
            host_size: vec![0; hosts],
            zone_uses: vec![0; zones],
            host_uses: vec![0; hosts],
            taken: vec![false; nodes],
        };
        for (host, zone) in topology.host.iter().zip(&topology.zone) {
            sweep.host_size[*host as usize] += 1;
            sweep.zone_size[*zone as usize] += 1;
        }
        for &owner in owners.iter().rev() {
            sweep.meet(owner);
        }
        let owns = |node: &u32| sweep.nodes.first.linked[*node as usize];
        let without = (0..topology.ids.len() as u32).filter(|node| !owns(node));
        let place = |node: u32| (mix(topology.ids[node as usize].get(), 0) % owners.len().max(1) as u64) as usize;
        sweep.second = without.map(|node| (place(node), node)).collect();
        sweep.second.sort_unstable_by(|one, other| other.cmp(one));
        for (_, node) in sweep.second.clone() {
            sweep.meet_again(node);
        }
        sweep
    }

    /// Moves back to `partition`, the one before the present position; on the first call, the last partition.
    pub fn back(&mut self, partition: usize) {
        self.meet(self.owners[partition]);
        let from = self.second.partition_point(|(place, _)| *place > partition);
        for at in (from..self.second.len()).take_while(|at| self.second[*at].0 == partition).collect::<Vec<_>>() {
            self.meet_again(self.second[at].1);
        }
    }

    /// Records that from here the walk meets this owner before all other nodes.
    fn meet(&mut self, node: u32) {
        let (host, zone) = (self.topology.host[node as usize], self.topology.zone[node as usize]);
        self.now -= 1;
        self.met_at[node as usize] = self.now;
        self.nodes.first.bring_forward(host, node);
        self.hosts.first.bring_forward(zone, host);
        self.zones.first.bring_forward(0, zone);
    }

    /// Records that from here the walk meets a node without a partition first on its second round.
    fn meet_again(&mut self, node: u32) {
        let (host, zone) = (self.topology.host[node as usize], self.topology.zone[node as usize]);
        self.now -= 1;
        self.met_at[node as usize] = self.now + SECOND_ROUND;
        self.nodes.second.bring_forward(host, node);
        if !self.hosts.first.linked[host as usize] {
            self.hosts.second.bring_forward(zone, host);
        }
        if !self.zones.first.linked[zone as usize] {
            self.zones.second.bring_forward(0, zone);
        }
    }

    /// Appends the first `length` nodes of the walk from here to `walk`, or as many as there are.
    pub fn walk(&mut self, length: usize, walk: &mut Vec<u32>) {
        let from = walk.len();
        let mut zones_used = 0;
        while walk.len() - from < length.min(self.topology.len()) {
            let node = self.next(zones_used);
            let (host, zone) = (self.topology.host[node as usize], self.topology.zone[node as usize]);
            zones_used += (self.zone_uses[zone as usize] == 0) as usize;
            self.zone_uses[zone as usize] += 1;
            self.host_uses[host as usize] += 1;
            self.taken[node as usize] = true;
            walk.push(node);
        }
        for &node in &walk[from..] {
            self.zone_uses[self.topology.zone[node as usize] as usize] = 0;
            self.host_uses[self.topology.host[node as usize] as usize] = 0;
            self.taken[node as usize] = false;
        }
    }

    /// The next node of a walk that used `zones_used` zones. At least one node must be left.
    fn next(&self, zones_used: usize) -> u32 {
        if zones_used < self.topology.zones {
            // In a new zone every host is new too, so the first node met there is the first node of its first host.
            let zone = self.zones.iter(0).find(|&zone| self.zone_uses[zone as usize] == 0).expect("an unused zone");
            return self.nodes.head(self.hosts.head(zone));
        }
        let left = |zone: &u32| self.zone_uses[*zone as usize] < self.zone_size[*zone as usize];
        let least = self.zones.iter(0).filter(left).map(|zone| self.zone_uses[zone as usize]).min();
        let zones = self.zones.iter(0).filter(left).filter(|&zone| Some(self.zone_uses[zone as usize]) == least);
        zones.map(|zone| self.next_in(zone)).min().expect("a node is left").2
    }

    /// The best node of a zone that has one left: (uses of its host, its position on the walk, node).
    fn next_in(&self, zone: u32) -> (u32, i64, u32) {
        let mut best = (u32::MAX, i64::MAX, NIL);
        for host in self.hosts.iter(zone) {
            let uses = self.host_uses[host as usize];
            if uses > best.0 || uses == self.host_size[host as usize] {
                continue;
            }
            let node = self.nodes.iter(host).find(|&node| !self.taken[node as usize]).expect("a node is left");
            best = best.min((uses, self.met_at[node as usize], node));
            if uses == 0 {
                // Hosts come in the order of the walk, and none can have fewer uses.
                break;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::topology::NodeInfo;
    use super::*;
    use crate::value::dot::NodeId;

    /// The rule of this module's documentation, implemented literally; `second` are the positions of nodes on the second round.
    fn dumb(topology: &Topology, owners: &[u32], second: &[(usize, u32)], from: usize) -> Vec<u32> {
        let mut met: Vec<u32> = Vec::new();
        for at in 0..owners.len() {
            let owner = owners[(from + at) % owners.len()];
            if !met.contains(&owner) {
                met.push(owner);
            }
        }
        for at in 0..owners.len() {
            let here = second.iter().filter(|(place, _)| *place == (from + at) % owners.len());
            let mut here: Vec<u32> = here.map(|(_, node)| *node).collect();
            here.sort_unstable();
            met.extend(here);
        }
        let mut walk: Vec<u32> = Vec::new();
        while !met.is_empty() {
            let uses =
                |of: &[u32], node: u32| walk.iter().filter(|taken| of[**taken as usize] == of[node as usize]).count();
            let best = (0..met.len())
                .min_by_key(|place| (uses(&topology.zone, met[*place]), uses(&topology.host, met[*place]), *place));
            walk.push(met.remove(best.unwrap()));
        }
        walk
    }

    proptest! {
        #[test]
        fn walks_follow_the_rule(
            nodes in prop::collection::vec((0u8..4, 0u8..5), 1..14),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
            length in 1usize..16,
        ) {
            let info = |(id, (zone, host)): (u64, &(u8, u8))| NodeInfo {
                zone: format!("z{zone}"),
                host: if *host == 0 { String::new() } else { format!("h{host}") },
                ..NodeInfo::new(NodeId::new(id))
            };
            let topology = Topology::new(&(0..).zip(&nodes).map(info).collect::<Vec<_>>());
            let owners: Vec<u32> = picks.iter().map(|pick| pick.index(nodes.len()) as u32).collect();
            let mut sweep = Sweep::new(&topology, &owners);
            let second = sweep.second.clone();
            for at in (0..owners.len()).rev() {
                sweep.back(at);
                let mut walk = Vec::new();
                sweep.walk(length, &mut walk);
                let mut expected = dumb(&topology, &owners, &second, at);
                expected.truncate(length);
                prop_assert_eq!(walk, expected);
            }
        }
    }
}
