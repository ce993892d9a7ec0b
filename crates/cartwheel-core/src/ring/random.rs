//! Placement by random tokens (paper, section 6.2, strategy 2): equal partitions, each owned by the first node token at or
//! after its start.

use std::num::NonZeroU32;

use super::partitions::Partitions;
use super::topology::{NORMAL_WEIGHT, NodeInfo, Topology};
use crate::value::dot::NodeId;
use crate::value::token::Token;

/// Token number `index` of `node`: the MD5 hash of its id and the index, so it never changes and is the same on every node.
pub fn node_token(node: NodeId, index: u32) -> Token {
    Token::of_name(&format!("{node}/{index}"))
}

/// The owners of the partitions if each node of normal weight has `tokens` random tokens, and others in proportion to their weight (at least
/// one). `None` if no node can hold data.
///
/// A node's tokens do not depend on other nodes, so a change moves only what its own tokens gain or lose.
pub fn random(nodes: &[NodeInfo], partitions: Partitions, tokens: NonZeroU32) -> Option<Vec<NodeId>> {
    let topology = Topology::new(nodes);
    let mut ring: Vec<(Token, NodeId)> = Vec::new();
    for (&node, &weight) in topology.ids.iter().zip(&topology.weights) {
        // At most one token for each partition: more would only take time.
        let share = u64::from(tokens.get()) * u64::from(weight) / u64::from(NORMAL_WEIGHT);
        let count = share.clamp(1, u64::from(Partitions::MAX)) as u32;
        ring.extend((0..count).map(|index| (node_token(node, index), node)));
    }
    ring.sort_unstable();
    let first = ring.first()?.1;
    let mut at = 0;
    let owner = |partition| {
        let start = partitions.start(partition);
        while at < ring.len() && ring[at].0 < start {
            at += 1;
        }
        ring.get(at).map_or(first, |(_, node)| *node)
    };
    Some(partitions.iter().map(owner).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u64) -> Vec<NodeInfo> {
        (1..=count).map(|id| NodeInfo::new(NodeId::new(id))).collect()
    }

    const TOKENS: NonZeroU32 = NonZeroU32::new(64).unwrap();

    #[test]
    fn a_partition_belongs_to_the_first_token_at_or_after_its_start() {
        let (nodes, q) = (nodes(5), Partitions::new(100).unwrap());
        let owners = random(&nodes, q, TOKENS).unwrap();
        for p in q.iter() {
            let tokens = nodes.iter().flat_map(|node| (0..64).map(|index| (node_token(node.id, index), node.id)));
            let ahead = |token: &Token| token.position().wrapping_sub(q.start(p).position());
            let nearest = tokens.min_by_key(|(token, _)| ahead(token)).unwrap();
            assert_eq!(owners[p.index()], nearest.1, "{p}");
        }
    }

    #[test]
    fn a_join_takes_partitions_only_for_the_joiner_and_weight_0_owns_nothing() {
        let q = Partitions::default();
        let before = random(&nodes(9), q, TOKENS).unwrap();
        let after = random(&nodes(10), q, TOKENS).unwrap();
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *after == NodeId::new(10)));
        assert!(after.contains(&NodeId::new(10)));
        let mut idle = nodes(2);
        idle[0].weight = 0;
        assert!(random(&idle, q, TOKENS).unwrap().iter().all(|owner| *owner == NodeId::new(2)));
        assert_eq!(random(&[], q, TOKENS), None);
    }

    #[test]
    fn a_node_has_tokens_in_proportion_to_its_weight() {
        let mut nodes = nodes(2);
        nodes[0].weight = 3 * NORMAL_WEIGHT;
        let owners = random(&nodes, Partitions::new(16_384).unwrap(), NonZeroU32::new(256).unwrap()).unwrap();
        let share = owners.iter().filter(|owner| **owner == NodeId::new(1)).count() as f64 / 16_384.0;
        assert!((0.70..0.80).contains(&share), "{share}");
    }
}
