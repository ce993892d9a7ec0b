//! The paper's first form (sections 4.2, 4.3, and strategy 1 of 6.2): the nodes' random tokens divide the ring.
//!
//! Only for comparison with the equal partitions that Cartwheel uses. A key belongs to the first node token at or after its own, clockwise: a
//! token's range is (predecessor, token].

use super::random::node_token;
use crate::value::dot::NodeId;
use crate::value::token::Token;

/// A ring divided by its nodes' tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRing {
    /// Sorted by token. If two nodes have one position, the smaller id wins.
    tokens: Vec<(Token, NodeId)>,
}

impl TokenRing {
    /// A ring with these tokens, in any order.
    pub fn new(tokens: impl IntoIterator<Item = (Token, NodeId)>) -> Self {
        let mut tokens: Vec<_> = tokens.into_iter().collect();
        tokens.sort_unstable();
        tokens.dedup_by_key(|(token, _)| *token);
        Self { tokens }
    }

    /// A ring on which each node has `tokens_per_node` pseudo-random tokens: the paper's T.
    pub fn random(nodes: impl IntoIterator<Item = NodeId>, tokens_per_node: u32) -> Self {
        let tokens = |node| (0..tokens_per_node).map(move |index| (node_token(node, index), node));
        Self::new(nodes.into_iter().flat_map(tokens))
    }

    /// All tokens, clockwise.
    pub fn tokens(&self) -> &[(Token, NodeId)] {
        &self.tokens
    }

    /// The node that a key with this token belongs to; `None` on an empty ring.
    pub fn owner(&self, key: Token) -> Option<NodeId> {
        self.walk(key).next()
    }

    /// The first `n` different nodes clockwise from `key`: further tokens of a node already met are skipped.
    pub fn preference_list(&self, key: Token, n: usize) -> Vec<NodeId> {
        let mut list: Vec<NodeId> = Vec::with_capacity(n);
        for node in self.walk(key) {
            if list.len() == n {
                break;
            }
            if !list.contains(&node) {
                list.push(node);
            }
        }
        list
    }

    /// The owners of the tokens met clockwise from `key`, once around.
    fn walk(&self, key: Token) -> impl Iterator<Item = NodeId> + '_ {
        let first = self.tokens.partition_point(|(token, _)| *token < key);
        self.tokens[first..].iter().chain(&self.tokens[..first]).map(|(_, node)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::new(1);
    const B: NodeId = NodeId::new(2);
    const C: NodeId = NodeId::new(3);
    const D: NodeId = NodeId::new(4);

    fn ring(tokens: &[(u128, NodeId)]) -> TokenRing {
        TokenRing::new(tokens.iter().map(|&(token, node)| (Token::new(token), node)))
    }

    #[test]
    fn a_node_that_joins_at_one_place_takes_exactly_the_keys_of_its_range() {
        let before = ring(&[(10, A), (20, B), (40, C)]);
        let after = ring(&[(10, A), (20, B), (40, C), (30, D)]);
        for key in (0..60).chain([u128::MAX - 1, u128::MAX]).map(Token::new) {
            let moved = (21..=30).contains(&key.position());
            let expected = if moved { Some(D) } else { before.owner(key) };
            assert_eq!(after.owner(key), expected, "{key}");
        }
        assert_eq!(before.owner(Token::new(25)), Some(C));
        assert_eq!(before.owner(Token::new(41)), Some(A), "past the last token the ring wraps");
        assert_eq!(before.owner(Token::new(20)), Some(B), "a token belongs to its own range");
    }

    #[test]
    fn the_walk_skips_the_second_token_of_one_node() {
        let ring = ring(&[(10, A), (20, B), (30, B), (40, C), (50, A), (60, D)]);
        assert_eq!(ring.preference_list(Token::new(5), 3), [A, B, C]);
        assert_eq!(ring.preference_list(Token::new(15), 3), [B, C, A]);
        assert_eq!(ring.preference_list(Token::new(35), 4), [C, A, D, B]);
        assert_eq!(ring.preference_list(Token::new(5), 9), [A, B, C, D], "no more than there are");
    }

    #[test]
    fn random_tokens_do_not_depend_on_the_order_of_nodes() {
        let ring = TokenRing::random([A, B, C], 64);
        assert_eq!(ring, TokenRing::random([C, A, B], 64));
        assert_eq!(ring.tokens().len(), 192);
        assert_eq!(TokenRing::random([], 64).owner(Token::new(1)), None);
    }
}
