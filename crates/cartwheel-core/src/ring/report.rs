//! A ring as text, and the violations of its placement rules.

use std::collections::BTreeMap;
use std::fmt;

use super::topology::Topology;
use super::{PartitionId, Ring};
use crate::value::dot::NodeId;

/// How far an assignment is from the best that its members allow.
///
/// A repeat is an owner, host or zone that occurs again within a window of consecutive partitions. Some repeats cannot be avoided: a group that
/// owns `c` of Q partitions occurs `c * window` times in Q windows. Only what exceeds that counts. Preference lists skip repeats, so repeats
/// cause no danger, only unevenness.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Violations {
    /// Avoidable repeats of a node, over all windows.
    pub node_repeats: u64,
    /// Avoidable repeats of a host.
    pub host_repeats: u64,
    /// Avoidable repeats of a zone.
    pub zone_repeats: u64,
    /// The largest distance of a node's number of partitions from its weighted share, in partitions. Below 1 is the best that whole numbers
    /// allow.
    pub off_ideal_max: f64,
}

impl Violations {
    /// Counts the violations of `ring` over windows of `n` consecutive partitions.
    pub fn count(ring: &Ring, n: usize) -> Self {
        let topology = Topology::new(&ring.nodes);
        let owners: Vec<u32> = ring.owners.iter().filter_map(|owner| topology.index(*owner)).collect();
        let group = |of: &[u32]| -> Vec<u32> { owners.iter().map(|owner| of[*owner as usize]).collect() };
        let total: u128 = topology.shares.iter().sum();
        let counts = counts(&owners);
        let off_ideal = topology.shares.iter().zip(0..).map(|(share, node)| {
            let ideal = owners.len() as f64 * *share as f64 / total as f64;
            (counts.get(&node).copied().unwrap_or(0) as f64 - ideal).abs()
        });
        Self {
            node_repeats: avoidable_repeats(&owners, n),
            host_repeats: avoidable_repeats(&group(&topology.host), n),
            zone_repeats: avoidable_repeats(&group(&topology.zone), n),
            off_ideal_max: off_ideal.fold(0.0, f64::max),
        }
    }
}

fn counts(groups: &[u32]) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for group in groups {
        *counts.entry(*group).or_insert(0) += 1;
    }
    counts
}

/// How often a group repeats, over all cyclic windows of `n`, minus the repeats that its share makes inevitable.
fn avoidable_repeats(groups: &[u32], n: usize) -> u64 {
    let n = n.min(groups.len());
    let different = |at: usize| -> usize {
        let window = |at: usize| (0..n).map(move |step| groups[(at + step) % groups.len()]);
        window(at).enumerate().filter(|(step, group)| !window(at).take(*step).any(|other| other == *group)).count()
    };
    let repeats: u64 = (0..groups.len()).map(|at| (n - different(at)) as u64).sum();
    let inevitable = counts(groups).values().map(|count| (count * n as u64).saturating_sub(groups.len() as u64)).sum();
    repeats.saturating_sub(inevitable)
}

/// The ring as text: a line for each node with its partitions and its share, then the owners clockwise, with runs of one owner on one line.
impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ring {} of {} partitions, {} nodes", self.version, self.partitions.count(), self.nodes.len())?;
        let mut owned: BTreeMap<NodeId, u32> = BTreeMap::new();
        for owner in &self.owners {
            *owned.entry(*owner).or_insert(0) += 1;
        }
        let topology = Topology::new(&self.nodes);
        let total: u128 = topology.shares.iter().sum();
        for node in &self.nodes {
            let share = topology.index(node.id).map_or(0, |index| topology.shares[index as usize]);
            let ideal = f64::from(self.partitions.count()) * share as f64 / total.max(1) as f64;
            let (owns, weight) = (owned.get(&node.id).unwrap_or(&0), node.weight);
            write!(f, "{}  owns {owns:>5}  ideal {ideal:>8.1}  weight {weight:>4}", node.id)?;
            writeln!(f, "  zone {:?}  host {:?}", node.zone, node.host)?;
        }
        for (from, to, owner) in self.runs() {
            let start = self.partitions.start(from);
            writeln!(f, "{:>11}  from {start}  {owner}", Range(from, to).to_string())?;
        }
        Ok(())
    }
}

/// Consecutive partitions, both ends included, as `3` or `3-5`.
struct Range(PartitionId, PartitionId);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

/// A node whose weight asks for more replicas than it can hold.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Capped {
    /// The node.
    pub node: NodeId,
    /// Its weight.
    pub weight: u32,
    /// Its effective weight.
    pub counts_as: f64,
}

impl Ring {
    /// The nodes whose weights ask for more replicas than a node can hold. Each node holds a partition once, so none holds more than one share
    /// in [`super::balanced::SPREAD`] of all replicas, or in as many shares as there are nodes.
    pub fn capped(&self) -> Vec<Capped> {
        let topology = Topology::new(&self.nodes);
        let capped = |(index, &node): (usize, &NodeId)| {
            let (weight, counts_as) = (topology.weights[index], topology.capped(index)?);
            Some(Capped { node, weight, counts_as })
        };
        topology.ids.iter().enumerate().filter_map(capped).collect()
    }

    /// Maximal runs of consecutive partitions with one owner: first partition, last partition, owner.
    pub fn runs(&self) -> Vec<(PartitionId, PartitionId, NodeId)> {
        let mut runs: Vec<(PartitionId, PartitionId, NodeId)> = Vec::new();
        for (p, owner) in self.partitions.iter().zip(&self.owners) {
            match runs.last_mut() {
                Some((_, to, last)) if last == owner => *to = p,
                _ => runs.push((p, p, *owner)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NodeInfo, Partitions, RingVersion};
    use super::*;

    fn ring(owners: &[u64], zones: &[&str]) -> Ring {
        let owners: Vec<_> = owners.iter().map(|id| NodeId::new(*id)).collect();
        let info = |(id, zone): (u64, &&str)| NodeInfo { zone: (*zone).into(), ..NodeInfo::new(NodeId::new(id)) };
        let nodes = (1..).zip(zones).map(info).collect();
        Ring::new(RingVersion::default(), Partitions::new(owners.len() as u32).unwrap(), owners, nodes).unwrap()
    }

    #[test]
    fn violations_match_a_count_by_hand() {
        let good = Violations::count(&ring(&[1, 2, 3, 1, 2, 3], &["a", "b", "c"]), 3);
        assert_eq!(good, Violations::default());
        // One repeat each in the windows 2 3 2, 3 2 3, 3 1 1 and 1 1 2.
        let seam = Violations::count(&ring(&[1, 2, 3, 2, 3, 1], &["a", "b", "c"]), 3);
        assert_eq!((seam.node_repeats, seam.zone_repeats, seam.off_ideal_max), (4, 4, 0.0));
        let uneven = Violations::count(&ring(&[1, 1, 1, 2], &["a", "b"]), 2);
        // Node 1 owns 3 of 4: 3 * 2 - 4 repeats are inevitable, and there are no more.
        assert_eq!((uneven.node_repeats, uneven.off_ideal_max), (0, 1.0));
        let one_zone = Violations::count(&ring(&[1, 2, 3, 4], &["a", "a", "a", "a"]), 3);
        assert_eq!(one_zone.zone_repeats, 0, "there is no other zone");
    }

    #[test]
    fn the_printer_shows_shares_and_runs() {
        let text = ring(&[1, 1, 2, 1], &["a", "b"]).to_string();
        let expected = "\
ring 0-0000000000000000 of 4 partitions, 2 nodes
0000000000000001  owns     3  ideal      2.0  weight  100  zone \"a\"  host \"\"
0000000000000002  owns     1  ideal      2.0  weight  100  zone \"b\"  host \"\"
        0-1  from 00000000000000000000000000000000  0000000000000001
          2  from 80000000000000000000000000000000  0000000000000002
          3  from c0000000000000000000000000000000  0000000000000001
";
        assert_eq!(text, expected);
    }
}
