//! The clockwise walk from a partition: in which order nodes are asked to hold its keys (paper, section 4.3).
//!
//! Each node comes once. A zone or a host comes twice only when no new one is left: the next node is one whose zone was used
//! least so far, among those one whose host was used least, among those the one that the walk meets first.
//!
//! To find it without looking along the ring, zones, hosts of a zone and nodes of a host are kept in the order in which the
//! walk meets them first. Sweeping the partitions backwards, each step moves one node, its host and its zone to the front.

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

    /// Moves `item` to the front of `list`, or puts it there; true if it is new.
    fn bring_forward(&mut self, list: u32, item: u32) -> bool {
        let (at, list) = (item as usize, list as usize);
        let new = !self.linked[at];
        if self.head[list] == item {
            return new;
        }
        if !new {
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
        new
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

/// The state of the backward sweep, and of one walk from where it stands.
pub(super) struct Sweep<'a> {
    topology: &'a Topology,
    zones: Lists,
    hosts: Lists,
    nodes: Lists,
    /// Where the walk meets each node first; only differences count.
    met_at: Vec<i64>,
    now: i64,
    zones_met: usize,
    nodes_met: usize,
    zone_size: Vec<u32>,
    host_size: Vec<u32>,
    zone_uses: Vec<u32>,
    host_uses: Vec<u32>,
    taken: Vec<bool>,
}

impl<'a> Sweep<'a> {
    pub fn new(topology: &'a Topology) -> Self {
        let (nodes, hosts, zones) = (topology.len(), topology.zone_of_host.len(), topology.zones);
        Self {
            topology,
            zones: Lists::new(1, zones),
            hosts: Lists::new(zones, hosts),
            nodes: Lists::new(hosts, nodes),
            met_at: vec![0; nodes],
            now: 0,
            zones_met: 0,
            nodes_met: 0,
            zone_size: vec![0; zones],
            host_size: vec![0; hosts],
            zone_uses: vec![0; zones],
            host_uses: vec![0; hosts],
            taken: vec![false; nodes],
        }
    }

    /// Steps one partition back, to one owned by `node`.
    pub fn back(&mut self, node: u32) {
        let (host, zone) = (self.topology.host[node as usize], self.topology.zone[node as usize]);
        self.now -= 1;
        self.met_at[node as usize] = self.now;
        if self.nodes.bring_forward(host, node) {
            self.nodes_met += 1;
            self.zone_size[zone as usize] += 1;
            self.host_size[host as usize] += 1;
        }
        self.hosts.bring_forward(zone, host);
        self.zones_met += self.zones.bring_forward(0, zone) as usize;
    }

    /// The nodes that own something.
    pub fn nodes_met(&self) -> usize {
        self.nodes_met
    }

    /// Appends the first `length` nodes of the walk from here to `walk`; fewer if there are fewer.
    pub fn walk(&mut self, length: usize, walk: &mut Vec<u32>) {
        let from = walk.len();
        let mut zones_used = 0;
        while walk.len() - from < length.min(self.nodes_met) {
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

    /// The next node of a walk that used `zones_used` zones; one must be left.
    fn next(&self, zones_used: usize) -> u32 {
        if zones_used < self.zones_met {
            // In a new zone every host is new too, so the first node met there is the first of the first host.
            let zone = self.zones.iter(0).find(|&zone| self.zone_uses[zone as usize] == 0).expect("an unused zone");
            return self.nodes.head[self.hosts.head[zone as usize] as usize];
        }
        let left = |zone: &u32| self.zone_uses[*zone as usize] < self.zone_size[*zone as usize];
        let least = self.zones.iter(0).filter(left).map(|zone| self.zone_uses[zone as usize]).min();
        let zones = self.zones.iter(0).filter(left).filter(|&zone| Some(self.zone_uses[zone as usize]) == least);
        zones.map(|zone| self.next_in(zone)).min().expect("a node is left").2
    }

    /// The best node of a zone that has one left: (uses of its host, where it is met, node).
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
                // Hosts come in the order in which the walk meets them, and none can be used less.
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
    use crate::dot::NodeId;

    /// The rule of this module's head, word for word.
    fn dumb(topology: &Topology, owners: &[u32], from: usize) -> Vec<u32> {
        let mut met: Vec<u32> = Vec::new();
        for at in 0..owners.len() {
            let owner = owners[(from + at) % owners.len()];
            if !met.contains(&owner) {
                met.push(owner);
            }
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
            let mut sweep = Sweep::new(&topology);
            owners.iter().rev().for_each(|owner| sweep.back(*owner));
            for at in (0..owners.len()).rev() {
                sweep.back(owners[at]);
                let mut walk = Vec::new();
                sweep.walk(length, &mut walk);
                let mut expected = dumb(&topology, &owners, at);
                expected.truncate(length);
                prop_assert_eq!(walk, expected);
            }
        }
    }
}
