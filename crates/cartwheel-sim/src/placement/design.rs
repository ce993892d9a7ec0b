//! The three strategies, with their parameters, and the membership state that each needs.

use std::num::NonZeroU32;

use cartwheel_core::ring::Partitions;
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::token::Token;

/// What a node keeps of one token of another: where it is, and whose.
pub const TOKEN_BYTES: u64 = (size_of::<Token>() + size_of::<NodeId>()) as u64;

/// What a node keeps of one partition: who owns it.
pub const PARTITION_BYTES: u64 = size_of::<NodeId>() as u64;

/// How many partitions there are for each token under strategy 2. The paper only says that there are many more partitions than
/// tokens (Q >> S*T, section 6.2).
pub const PARTITIONS_PER_TOKEN: u64 = 8;

/// One of the paper's strategies (section 6.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Strategy {
    /// 1: random tokens, and ranges that lie between them.
    One,
    /// 2: random tokens, and equal partitions that belong to the next token.
    Two,
    /// 3: equal partitions, shared out evenly. What Cartwheel does unless it is told otherwise.
    Three,
}

impl Strategy {
    /// All of them, in the paper's order.
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

/// A strategy with its parameters: the paper's T (tokens a node) and Q (partitions of the ring).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Design {
    /// Strategy 1.
    One {
        /// How many tokens each node has.
        tokens: NonZeroU32,
    },
    /// Strategy 2.
    Two {
        /// How many tokens each node has.
        tokens: NonZeroU32,
        /// How many partitions the ring has.
        partitions: Partitions,
    },
    /// Strategy 3.
    Three {
        /// How many partitions the ring has.
        partitions: Partitions,
    },
}

impl Design {
    /// The finest design of `strategy` for so many nodes whose state takes at most `bytes` on each node; none if there is none, or if
    /// it would need more partitions than a ring can have.
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

    /// The paper's T, where it matters.
    pub fn tokens(self) -> Option<u32> {
        match self {
            Self::One { tokens } | Self::Two { tokens, .. } => Some(tokens.get()),
            Self::Three { .. } => None,
        }
    }

    /// The paper's Q, where the ring has equal partitions.
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
    fn the_finest_that_fits() {
        // 30 nodes with 11 tokens of 24 bytes are 7,920 bytes, with 12 they are 8,640.
        let one = Design::within(Strategy::One, 30, 8192).unwrap();
        assert_eq!((one.tokens(), one.partitions()), (Some(11), None));
        // A token of strategy 2 comes with 8 partitions: 88 bytes.
        let two = Design::within(Strategy::Two, 30, 8192).unwrap();
        assert_eq!((two.tokens(), two.partitions()), (Some(3), Some(720)));
        let three = Design::within(Strategy::Three, 30, 8192).unwrap();
        assert_eq!((three.tokens(), three.partitions()), (None, Some(1024)));
        assert_eq!(Design::within(Strategy::Two, 30, 2000), None, "no token each");
        assert_eq!(Design::within(Strategy::Three, 30, 1 << 30), None, "too many partitions");
    }
}
