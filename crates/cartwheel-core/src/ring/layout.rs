//! An assignment of partitions to nodes under construction, and the cost of its clashes.
//!
//! A clash is two partitions less than `spread` apart whose owners are one node, share a host or share a zone. Without clashes, the preference
//! list of a partition is the next `spread` owners. Then moving one partition to another node exchanges one replica in each of the `spread`
//! lists that contain it, which is the least possible.

use super::topology::Topology;

/// No owner (yet).
pub(super) const FREE: u32 = u32::MAX;

const ZONE_CLASH: u32 = 1;
const HOST_CLASH: u32 = 4;
const NODE_CLASH: u32 = 16;

/// Owners of all partitions as dense node numbers.
pub(super) struct Layout<'a> {
    pub topology: &'a Topology,
    pub owner: Vec<u32>,
    /// The number of consecutive partitions that should have different owners.
    spread: usize,
}

impl<'a> Layout<'a> {
    pub fn new(topology: &'a Topology, owner: Vec<u32>, spread: usize) -> Self {
        // On a ring shorter than a window, every partition is a neighbour of every other, once.
        let spread = spread.clamp(1, owner.len().max(1));
        Self { topology, owner, spread }
    }

    pub fn len(&self) -> usize {
        self.owner.len()
    }

    /// The number of partitions that each node owns.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.topology.len()];
        for &owner in self.owner.iter().filter(|owner| **owner != FREE) {
            counts[owner as usize] += 1;
        }
        counts
    }

    /// The partitions less than `spread` away from `at`, with the number of windows that contain both.
    pub fn neighbours(&self, at: usize) -> impl Iterator<Item = (usize, u32)> + use<> {
        let (len, spread) = (self.owner.len(), self.spread);
        (1..spread).flat_map(move |distance| {
            let windows = (spread - distance) as u32;
            let after = if at + distance < len { at + distance } else { at + distance - len };
            let before = if at >= distance { at - distance } else { at + len - distance };
            [(after, windows), (before, windows)]
        })
    }

    /// The cost of the clashes if `node` owns `at`; 0 if there are none.
    pub fn cost(&self, at: usize, node: u32) -> u32 {
        if node == FREE {
            return 0;
        }
        let (zone, host) = (self.topology.zone[node as usize], self.topology.host[node as usize]);
        let mut cost = 0;
        for (other, windows) in self.neighbours(at) {
            let other = self.owner[other];
            if other == FREE || self.topology.zone[other as usize] != zone {
                continue;
            }
            cost += windows
                * if other == node {
                    NODE_CLASH
                } else if self.topology.host[other as usize] == host {
                    HOST_CLASH
                } else {
                    ZONE_CLASH
                };
        }
        cost
    }

    /// The cost of the clashes of the present owner of `at`.
    pub fn cost_at(&self, at: usize) -> u32 {
        self.cost(at, self.owner[at])
    }

    /// How much lower the cost is if `a` and `b` exchange owners.
    pub fn swap_gain(&mut self, a: usize, b: usize) -> i64 {
        let before = self.cost_at(a) + self.cost_at(b);
        self.owner.swap(a, b);
        let after = self.cost_at(a) + self.cost_at(b);
        self.owner.swap(a, b);
        i64::from(before) - i64::from(after)
    }
}

/// Mixes two numbers into one that looks random (the finalizer of SplitMix64), to break ties without a pattern.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.rotate_left(32) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
