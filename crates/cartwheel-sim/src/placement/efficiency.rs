//! How evenly each strategy shares out a uniform load, against what its membership state takes: the paper's figure 8.

use serde::Serialize;

use super::design::{Design, Strategy};
use super::draw_nodes;
use super::placed::{Placed, efficiency};
use crate::rng::{Rng, Stream};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many nodes there are: the paper's S.
    pub nodes: u32,
    /// On how many of them each key lies: the paper's N.
    pub replicas: usize,
    /// How many clusters, each of other nodes, the figures are the mean of.
    pub clusters: u32,
    /// What decides which nodes these are.
    pub seed: u64,
}

/// How evenly one strategy shares out the load with one size of state.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Which strategy.
    pub strategy: u8,
    /// How many tokens a node has, if it has tokens.
    pub tokens: Option<u32>,
    /// How many equal partitions the ring has, if it has such.
    pub partitions: Option<u32>,
    /// How many bytes of membership state each node keeps ([`Placed::state_bytes`]).
    pub state_bytes: u64,
    /// The mean load of a node by that of the hottest node: the mean of all clusters.
    pub efficiency: f64,
    /// The same of the cluster with the least.
    pub efficiency_min: f64,
}

/// The sizes of state that are compared, in bytes: powers of two from 1 KiB to 256 KiB.
pub fn sizes() -> impl Iterator<Item = u64> {
    (10..=18).map(|power| 1 << power)
}

/// Measures `strategy` with at most `bytes` of state; none if it needs more.
pub fn measure(settings: Settings, strategy: Strategy, bytes: u64) -> Option<Point> {
    let design = Design::within(strategy, settings.nodes, bytes)?;
    // The same nodes for all strategies and sizes.
    let mut rng = Rng::new(settings.seed, Stream::Placement);
    let (mut sum, mut least, mut state_bytes) = (0.0, f64::INFINITY, 0);
    for _ in 0..settings.clusters.max(1) {
        let placed = Placed::new(design, &draw_nodes(&mut rng, settings.nodes), settings.replicas)?;
        let one = efficiency(&placed.uniform_loads());
        (sum, least, state_bytes) = (sum + one, least.min(one), placed.state_bytes());
    }
    Some(Point {
        strategy: strategy.number(),
        tokens: design.tokens(),
        partitions: design.partitions(),
        state_bytes,
        efficiency: sum / f64::from(settings.clusters.max(1)),
        efficiency_min: least,
    })
}

/// The least state with which a strategy was at least so efficient, of the points measured, in bytes.
pub fn least_state(points: &[Point], strategy: Strategy, at_least: f64) -> Option<u64> {
    let enough = points.iter().filter(|point| point.strategy == strategy.number() && point.efficiency >= at_least);
    enough.map(|point| point.state_bytes).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { nodes: 30, replicas: 3, clusters: 5, seed: 1 };

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
    fn more_state_evens_out_what_is_random() {
        for strategy in Strategy::ALL {
            let (small, large) = (efficiency_of(strategy, 1 << 12), efficiency_of(strategy, 1 << 18));
            assert!(large > small, "{strategy:?}: {small} {large}");
        }
    }

    #[test]
    fn equal_shares_are_perfectly_even_where_they_come_out_whole() {
        let settings = Settings { nodes: 32, ..SETTINGS };
        let point = measure(settings, Strategy::Three, 1 << 13).unwrap();
        assert_eq!((point.partitions, point.state_bytes), (Some(1024), 1 << 13));
        assert!((point.efficiency - 1.0).abs() < 1e-9, "{point:?}");
        // 17 or 18 partitions of 512 each at 30 nodes, times three: if lists skip nobody, 51.2 by 54.
        let uneven = measure(SETTINGS, Strategy::Three, 1 << 12).unwrap();
        assert!((uneven.efficiency - 51.2 / 54.0).abs() < 0.02, "{uneven:?}");
    }

    #[test]
    fn a_seed_gives_the_same_figures_again_and_another_seed_others() {
        let of = |seed| measure(Settings { seed, ..SETTINGS }, Strategy::One, 1 << 13);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(measure(SETTINGS, Strategy::Two, 1 << 10), None, "not even a token each");
    }

    #[test]
    fn the_least_state_is_that_of_the_first_point_that_is_good_enough() {
        let points: Vec<_> =
            sizes().filter_map(|bytes| measure(Settings { nodes: 32, ..SETTINGS }, Strategy::Three, bytes)).collect();
        assert_eq!(least_state(&points, Strategy::Three, 0.999), Some(1 << 10));
        assert_eq!(least_state(&points, Strategy::One, 0.1), None, "it was not measured");
    }
}
