//! The paper's three placement strategies, their parameters, and the size of the membership state that each needs.

use std::num::NonZeroU32;

use cartwheel_core::ring::Partitions;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::token::Token;

/// The size of the state for one token: its position and its node.
pub const TOKEN_BYTES: u64 = (size_of::<Token>() + size_of::<NodeId>()) as u64;

/// The size of the state for one partition: its owner.
pub const PARTITION_BYTES: u64 = size_of::<NodeId>() as u64;

/// The number of partitions for each token under strategy 2. The paper only says that there are many more partitions than tokens (Q >> S*T,
/// section 6.2).
pub const PARTITIONS_PER_TOKEN: u64 = 8;

/// One of the paper's strategies (section 6.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Strategy {
    /// 1: random tokens, and the ranges between them.
    One,
    /// 2: random tokens, and equal partitions, each of which belongs to the next token.
    Two,
    /// 3: equal partitions, evenly assigned to the nodes. This is Cartwheel's default.
    Three,
}

impl Strategy {
    /// All strategies, in the paper's order.
    pub const ALL: [Self; 3] = [Self::One, Self::Two, Self::Three];

    /// Its number in the paper.
    pub const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// A strategy with its parameters: the paper's T (tokens of a node) and Q (partitions of the ring).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Design {
    /// Strategy 1.
    One {
        /// The number of tokens of each node.
        tokens: NonZeroU32,
    },
    /// Strategy 2.
    Two {
        /// The number of tokens of each node.
        tokens: NonZeroU32,
        /// The number of partitions of the ring.
        partitions: Partitions,
    },
    /// Strategy 3.
    Three {
        /// The number of partitions of the ring.
        partitions: Partitions,
    },
}

impl Design {
    /// The finest design of `strategy` for `nodes` nodes whose state takes at most `bytes` on each node. `None` if even the coarsest takes more,
    /// or if the ring would need more partitions than it can have.
    pub fn within(strategy: Strategy, nodes: u32, bytes: u64) -> Option<Self> {
        let tokens = |bytes_each: u64| {
            let tokens = bytes / (u64::from(nodes) * bytes_each).max(1);
            NonZeroU32::new(u32::try_from(tokens).ok()?)
        };
        let partitions = |count: u64| Partitions::new(u32::try_from(count).ok()?).ok();
        match strategy {
            Strategy::One => Some(Self::One { tokens: tokens(TOKEN_BYTES)? }),
            Strategy::Two => {
                let tokens = tokens(TOKEN_BYTES + PARTITIONS_PER_TOKEN * PARTITION_BYTES)?;
                let count = u64::from(nodes) * u64::from(tokens.get()) * PARTITIONS_PER_TOKEN;
                Some(Self::Two { tokens, partitions: partitions(count)? })
            }
            Strategy::Three => Some(Self::Three { partitions: partitions(bytes / PARTITION_BYTES)? }),
        }
    }

    /// The paper's T, for strategies with tokens.
    pub fn tokens(self) -> Option<u32> {
        match self {
            Self::One { tokens } | Self::Two { tokens, .. } => Some(tokens.get()),
            Self::Three { .. } => None,
        }
    }

    /// The paper's Q, for strategies with equal partitions.
    pub fn partitions(self) -> Option<u32> {
        match self {
            Self::One { .. } => None,
            Self::Two { partitions, .. } | Self::Three { partitions } => Some(partitions.count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finest_design_within_the_bytes_is_chosen() {
        // 30 nodes with 11 tokens of 24 bytes are 7,920 bytes, with 12 they are 8,640.
        let one = Design::within(Strategy::One, 30, 8192).unwrap();
        assert_eq!((one.tokens(), one.partitions()), (Some(11), None));
        // A token of strategy 2 comes with 8 partitions: 88 bytes.
        let two = Design::within(Strategy::Two, 30, 8192).unwrap();
        assert_eq!((two.tokens(), two.partitions()), (Some(3), Some(720)));
        let three = Design::within(Strategy::Three, 30, 8192).unwrap();
        assert_eq!((three.tokens(), three.partitions()), (None, Some(1024)));
        assert_eq!(Design::within(Strategy::Two, 30, 2000), None, "less than a token for each node");
        assert_eq!(Design::within(Strategy::Three, 30, 1 << 30), None, "too many partitions");
    }
}
