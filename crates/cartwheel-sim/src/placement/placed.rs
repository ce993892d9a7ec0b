//! A placed cluster: the load of each node, and the size of the state that it needs to find keys.

use cartwheel_core::ring::balanced::{SPREAD, balanced};
use cartwheel_core::ring::random::random;
use cartwheel_core::ring::strategy1::TokenRing;
use cartwheel_core::ring::{NodeInfo, Partitions, Ring, RingVersion};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::token::Token;

use super::design::{Design, PARTITION_BYTES, TOKEN_BYTES};

/// A cluster whose nodes are placed by one of the strategies.
#[derive(Debug)]
pub struct Placed {
    table: Table,
    /// Sorted.
    nodes: Vec<NodeId>,
    replicas: usize,
    /// The number of tokens kept besides the table's partitions.
    tokens: u64,
}

#[derive(Debug)]
enum Table {
    Tokens(TokenRing),
    Partitions(Ring),
}

impl Placed {
    /// Places `nodes`, with each key on `replicas` of them (the paper's N), at most [`cartwheel_core::ring::N_MAX`]. `None` without nodes.
    pub fn new(design: Design, nodes: &[NodeId], replicas: usize) -> Option<Self> {
        let mut sorted = nodes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let infos: Vec<NodeInfo> = sorted.iter().copied().map(NodeInfo::new).collect();
        let ring = |partitions: Partitions, owners: Option<Vec<NodeId>>| {
            Ring::new(RingVersion::default(), partitions, owners?, infos.clone()).ok()
        };
        let (table, tokens) = match design {
            Design::One { tokens } => (Table::Tokens(TokenRing::random(sorted.iter().copied(), tokens.get())), 0),
            Design::Two { tokens, partitions } => {
                let placed = ring(partitions, random(&infos, partitions, tokens))?;
                (Table::Partitions(placed), sorted.len() as u64 * u64::from(tokens.get()))
            }
            Design::Three { partitions } => {
                (Table::Partitions(ring(partitions, balanced(None, &infos, partitions, SPREAD))?), 0)
            }
        };
        (!sorted.is_empty()).then_some(Self { table, nodes: sorted, replicas, tokens })
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Always false: there is at least one node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds `load` to each home of a key with this token; `loads` has an entry for each node.
    pub fn add(&self, key: Token, load: f64, loads: &mut [f64]) {
        match &self.table {
            Table::Tokens(ring) => self.add_to(&ring.preference_list(key, self.replicas), load, loads),
            Table::Partitions(ring) => self.add_to(ring.homes(ring.partition_of(key), self.replicas), load, loads),
        }
    }

    fn add_to(&self, homes: &[NodeId], load: f64, loads: &mut [f64]) {
        for at in homes.iter().filter_map(|home| self.nodes.binary_search(home).ok()) {
            loads[at] += load;
        }
    }

    /// Each node's share of the requests under a uniform load of very many keys, if each request goes to all homes. The sum is the number of
    /// replicas.
    pub fn uniform_loads(&self) -> Vec<f64> {
        let mut loads = vec![0.0; self.nodes.len()];
        match &self.table {
            Table::Tokens(ring) => {
                let tokens = ring.tokens().iter().map(|(token, _)| *token);
                let before = tokens.clone().next_back().into_iter().chain(tokens.clone());
                for (before, token) in before.zip(tokens) {
                    // A token's range ends at the token. A single token's range is the whole ring.
                    let length = token.position().wrapping_sub(before.position());
                    let share = if length == 0 { 1.0 } else { length as f64 / RING };
                    self.add(token, share, &mut loads);
                }
            }
            Table::Partitions(ring) => {
                let share = 1.0 / f64::from(ring.partitions().count());
                for partition in ring.partitions().iter() {
                    self.add_to(ring.homes(partition, self.replicas), share, &mut loads);
                }
            }
        }
        loads
    }

    /// The size of the membership state that each node needs to find every key (paper, section 6.2), in bytes. The list of nodes and addresses,
    /// which is the same for all strategies, is not counted.
    ///
    /// - Strategy 1: every token of every node with its owner, because ranges follow from nothing else.
    /// - Strategy 2: the same, because tokens decide which node takes over a partition when nodes come and go; and each partition's owner, because
    ///   partitions are what is looked up, stored and moved.
    /// - Strategy 3: each partition's owner.
    ///
    /// An owner takes 8 bytes and a token 16 in all strategies, without compression.
    pub fn state_bytes(&self) -> u64 {
        let (tokens, partitions) = match &self.table {
            Table::Tokens(ring) => (ring.tokens().len() as u64, 0),
            Table::Partitions(ring) => (self.tokens, ring.owners().len() as u64),
        };
        tokens * TOKEN_BYTES + partitions * PARTITION_BYTES
    }
}

/// The length of the ring.
const RING: f64 = 2.0 * (1_u128 << 127) as f64;

/// The paper's load balancing efficiency (section 6.2): the mean load of the nodes divided by the load of the hottest. 1 is best; all load on one
/// node gives the inverse of the number of nodes. Without any load it is 1.
pub fn efficiency(loads: &[f64]) -> f64 {
    let (sum, most) = loads.iter().fold((0.0, 0.0_f64), |(sum, most), load| (sum + load, most.max(*load)));
    if most == 0.0 { 1.0 } else { sum / loads.len() as f64 / most }
}

/// The number of nodes whose load differs from the mean by more than `threshold`, as a fraction of the mean. It is 0.15 in the paper (figure 6).
pub fn out_of_balance(loads: &[f64], threshold: f64) -> usize {
    let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    loads.iter().filter(|load| (*load - mean).abs() > threshold * mean).count()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::super::design::Strategy;
    use super::*;
    use crate::rng::{Rng, Stream};

    fn tokens(tokens: &[(u128, u64)], replicas: usize) -> Placed {
        let quarter = |(quarters, node): &(u128, u64)| (Token::new(quarters << 126), NodeId::new(*node));
        let ring = TokenRing::new(tokens.iter().map(quarter));
        let mut nodes: Vec<_> = tokens.iter().map(|(_, node)| NodeId::new(*node)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Placed { table: Table::Tokens(ring), nodes, replicas, tokens: 0 }
    }

    fn partitions(owners: &[u64], nodes: u64, replicas: usize) -> Placed {
        let ids: Vec<_> = (1..=nodes).map(NodeId::new).collect();
        let (infos, q) = (ids.iter().copied().map(NodeInfo::new).collect(), Partitions::new(owners.len() as u32));
        let owners = owners.iter().copied().map(NodeId::new).collect();
        let ring = Ring::new(RingVersion::default(), q.unwrap(), owners, infos).unwrap();
        Placed { table: Table::Partitions(ring), nodes: ids, replicas, tokens: 0 }
    }

    #[test]
    fn loads_match_hand_computed_ones() {
        // Node 1 has the three quarters up to its token, node 2 the last one.
        let one = tokens(&[(3, 1), (0, 2)], 1);
        assert_eq!(one.uniform_loads(), [0.75, 0.25]);
        assert_eq!(efficiency(&one.uniform_loads()), 0.5 / 0.75);
        assert_eq!(tokens(&[(3, 1), (0, 2)], 2).uniform_loads(), [1.0, 1.0]);
        assert_eq!(tokens(&[(2, 7)], 3).uniform_loads(), [1.0], "one token has the whole ring");
        // The lists of two are 1 2, 2 3, 3 1 (the second 3 is skipped) and 3 1.
        let lists = partitions(&[1, 2, 3, 3], 4, 2);
        assert_eq!(lists.uniform_loads(), [0.75, 0.5, 0.75, 0.0]);
        assert_eq!(efficiency(&lists.uniform_loads()), 0.5 / 0.75);
        assert_eq!(efficiency(&[0.0, 0.0]), 1.0);
    }

    #[test]
    fn more_than_the_threshold_off_the_mean_is_out_of_balance() {
        assert_eq!(out_of_balance(&[100.0, 115.0, 85.0, 100.0], 0.15), 0);
        assert_eq!(out_of_balance(&[100.0, 116.0, 84.0, 100.0], 0.15), 2);
        assert_eq!(out_of_balance(&[0.0, 0.0], 0.15), 0);
    }

    #[test]
    fn the_size_of_the_state_follows_from_tokens_and_partitions() {
        let nodes: Vec<_> = (1..=30).map(NodeId::new).collect();
        let bytes = |design| Placed::new(design, &nodes, 3).unwrap().state_bytes();
        let (tokens, partitions) = (NonZeroU32::new(4).unwrap(), Partitions::new(1000).unwrap());
        assert_eq!(bytes(Design::One { tokens }), 30 * 4 * 24);
        assert_eq!(bytes(Design::Two { tokens, partitions }), 30 * 4 * 24 + 1000 * 8);
        assert_eq!(bytes(Design::Three { partitions }), 1000 * 8);
        for strategy in Strategy::ALL {
            let used = bytes(Design::within(strategy, 30, 50_000).unwrap());
            assert!((47_000..=50_000).contains(&used), "{strategy:?} {used}");
        }
        assert!(Placed::new(Design::Three { partitions }, &[], 3).is_none());
    }

    proptest! {
        #[test]
        fn uniform_loads_match_the_homes_of_many_keys(seed: u64, nodes in 1u32..12, replicas in 1usize..4) {
            let nodes = super::super::draw_nodes(&mut Rng::new(seed, Stream::Placement), nodes);
            let keys = 4_000;
            for strategy in Strategy::ALL {
                let placed = Placed::new(Design::within(strategy, 12, 12_000).unwrap(), &nodes, replicas).unwrap();
                let (shares, mut found) = (placed.uniform_loads(), vec![0.0; nodes.len()]);
                for key in 0..keys {
                    placed.add(Token::of_key(b"b", &u64::to_be_bytes(key)), 1.0 / keys as f64, &mut found);
                }
                for (share, found) in shares.iter().zip(&found) {
                    // Five standard deviations of a share of one half.
                    prop_assert!((share - found).abs() < 0.04, "{:?}: {} of {}", strategy, found, share);
                }
                let sum: f64 = shares.iter().sum();
                prop_assert!((sum - replicas.min(nodes.len()) as f64).abs() < 1e-9, "{sum}");
            }
        }
    }
}
