//! The paper's figure 8: how evenly each strategy distributes a uniform load, by the size of its membership state.

use serde::Serialize;

use super::design::{Design, Strategy};
use super::draw_nodes;
use super::placed::{Placed, efficiency};
use crate::rng::{Rng, Stream};

/// The parameters of a measurement of efficiency.
#[derive(Clone, Copy, Debug)]
pub struct EfficiencySettings {
    /// The number of nodes: the paper's S.
    pub nodes: u32,
    /// The number of replicas of each key: the paper's N.
    pub replicas: usize,
    /// The number of clusters, each with other nodes, over which the mean is taken.
    pub clusters: u32,
    /// The seed of the nodes' ids.
    pub seed: u64,
}

/// The efficiency of one strategy with one size of state.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EfficiencyPoint {
    /// The strategy's number in the paper.
    pub strategy: u8,
    /// The number of tokens of a node, if it has tokens.
    pub tokens: Option<u32>,
    /// The number of partitions of the ring, if they are equal.
    pub partitions: Option<u32>,
    /// The size of the membership state on each node, in bytes ([`Placed::state_bytes`]).
    pub state_bytes: u64,
    /// The mean load of the nodes divided by the load of the hottest node: the mean over all clusters.
    pub efficiency: f64,
    /// The lowest efficiency of any cluster.
    pub efficiency_min: f64,
}

/// The sizes of state to compare, in bytes: powers of two from 1 KiB to 256 KiB.
pub fn sizes() -> impl Iterator<Item = u64> {
    (10..=18).map(|power| 1 << power)
}

/// Measures `strategy` with at most `bytes` of state; `None` if it needs more.
pub fn measure(settings: EfficiencySettings, strategy: Strategy, bytes: u64) -> Option<EfficiencyPoint> {
    let design = Design::within(strategy, settings.nodes, bytes)?;
    // All strategies and sizes use the same nodes.
    let mut rng = Rng::new(settings.seed, Stream::Placement);
    let (mut sum, mut least, mut state_bytes) = (0.0, f64::INFINITY, 0);
    for _ in 0..settings.clusters.max(1) {
        let placed = Placed::new(design, &draw_nodes(&mut rng, settings.nodes), settings.replicas)?;
        let one = efficiency(&placed.uniform_loads());
        (sum, least, state_bytes) = (sum + one, least.min(one), placed.state_bytes());
    }
    Some(EfficiencyPoint {
        strategy: strategy.number(),
        tokens: design.tokens(),
        partitions: design.partitions(),
        state_bytes,
        efficiency: sum / f64::from(settings.clusters.max(1)),
        efficiency_min: least,
    })
}

/// The smallest state, in bytes, with which a strategy reached this efficiency in one of `points`.
pub fn least_state(points: &[EfficiencyPoint], strategy: Strategy, at_least: f64) -> Option<u64> {
    let enough = points.iter().filter(|point| point.strategy == strategy.number() && point.efficiency >= at_least);
    enough.map(|point| point.state_bytes).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: EfficiencySettings = EfficiencySettings { nodes: 30, replicas: 3, clusters: 5, seed: 1 };

    fn efficiency_of(strategy: Strategy, bytes: u64) -> f64 {
        measure(SETTINGS, strategy, bytes).unwrap().efficiency
    }

    #[test]
    fn with_the_same_state_strategy_3_is_the_most_even_and_strategy_2_the_least() {
        for bytes in sizes().filter(|bytes| *bytes >= 1 << 12) {
            let [one, two, three] = Strategy::ALL.map(|strategy| efficiency_of(strategy, bytes));
            assert!(three > one && one > two, "{bytes}: {one} {two} {three}");
        }
    }

    #[test]
    fn more_state_balances_random_placements_better() {
        for strategy in Strategy::ALL {
            let (small, large) = (efficiency_of(strategy, 1 << 12), efficiency_of(strategy, 1 << 18));
            assert!(large > small, "{strategy:?}: {small} {large}");
        }
    }

    #[test]
    fn equal_shares_are_perfectly_even_if_they_are_whole_numbers() {
        let settings = EfficiencySettings { nodes: 32, ..SETTINGS };
        let point = measure(settings, Strategy::Three, 1 << 13).unwrap();
        assert_eq!((point.partitions, point.state_bytes), (Some(1024), 1 << 13));
        assert!((point.efficiency - 1.0).abs() < 1e-9, "{point:?}");
        // At 30 nodes each owns 17 or 18 of 512 partitions, times three replicas. If lists skip no node, the efficiency is 51.2 / 54.
        let uneven = measure(SETTINGS, Strategy::Three, 1 << 12).unwrap();
        assert!((uneven.efficiency - 51.2 / 54.0).abs() < 0.02, "{uneven:?}");
    }

    #[test]
    fn a_seed_gives_the_same_figures_again_and_another_seed_others() {
        let of = |seed| measure(EfficiencySettings { seed, ..SETTINGS }, Strategy::One, 1 << 13);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(measure(SETTINGS, Strategy::Two, 1 << 10), None, "less than a token for each node");
    }

    #[test]
    fn the_least_state_is_that_of_the_first_point_that_is_good_enough() {
        let points: Vec<_> = sizes()
            .filter_map(|bytes| measure(EfficiencySettings { nodes: 32, ..SETTINGS }, Strategy::Three, bytes))
            .collect();
        assert_eq!(least_state(&points, Strategy::Three, 0.999), Some(1 << 10));
        assert_eq!(least_state(&points, Strategy::One, 0.1), None, "it was not measured");
    }
}
