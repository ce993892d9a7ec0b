//! How many nodes are out of balance as the load falls: the paper's figure 6.
//!
//! The paper counts, in windows of half an hour, the nodes whose requests are more than 15% off the mean (section 6.2). The fewer
//! requests, the more of them: "during low loads (where load is 1/8th of the measured peak load), fewer popular keys are accessed,
//! resulting in a higher load imbalance". Here a window at a part of the peak load has that part of the peak's requests, and they ask for that
//! part of the peak's keys, which change from window to window; how often a key is asked for falls off with its rank as in Zipf's law. Every
//! request is drawn, and goes to all homes of its key.
//!
//! Amazon's trace is not public, and neither its skew nor the number of its keys is in the paper. So the direction can be compared with
//! figure 6 (20% of the nodes at low load, 10% at high load); the height depends on what is assumed of keys and skew.

use cartwheel_core::value::token::Token;
use serde::Serialize;

use super::design::{Design, Strategy};
use super::draw_nodes;
use super::placed::{Placed, out_of_balance};
use crate::rng::{Rng, Stream};

/// How far off the mean a node's load may be, as a part of it: the paper's 15%.
pub const THRESHOLD: f64 = 0.15;

/// The levels of load that are compared, in eighths of the peak: the paper's low load is one.
pub const LEVELS: std::ops::RangeInclusive<u32> = 1..=8;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many nodes there are.
    pub nodes: u32,
    /// On how many of them each key lies.
    pub replicas: usize,
    /// How many bytes of membership state each node may keep, under each strategy.
    pub state_bytes: u64,
    /// In how many clusters, each of other nodes, these are counted at each level of load.
    pub clusters: u32,
    /// In how many windows of each cluster, each with other keys.
    pub windows: u32,
    /// How many different keys are asked for in a window of peak load.
    pub keys: u32,
    /// How many requests there are in a window of peak load.
    pub requests: u32,
    /// How skewed they are: the key of rank r is asked for in proportion to 1 / r^skew. 0 is uniform.
    pub skew: f64,
    /// What decides about clusters, keys and requests.
    pub seed: u64,
}

/// How many nodes are out of balance at one level of load.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// The load, in eighths of the peak.
    pub load_eighths: u32,
    /// How many requests a window has.
    pub requests: u32,
    /// How many different keys they may ask for.
    pub keys: u32,
    /// The share of nodes that are out of balance, in strategies 1, 2 and 3; none where the state does not suffice.
    pub out_of_balance: [Option<f64>; 3],
}

/// Measures one level of load, in eighths of the peak.
pub fn measure(settings: Settings, load_eighths: u32) -> Point {
    let part = |of: u32| (u64::from(of) * u64::from(load_eighths) / 8).max(1).min(u64::from(u32::MAX)) as u32;
    let (requests, keys) = (part(settings.requests), part(settings.keys));
    let ranks = Ranks::new(keys, settings.skew);
    let designs = Strategy::ALL.map(|strategy| Design::within(strategy, settings.nodes, settings.state_bytes));
    let mut off = [0_usize; 3];
    let mut rng = Rng::new(settings.seed, Stream::Placement);
    for _ in 0..settings.clusters {
        let nodes = draw_nodes(&mut rng, settings.nodes);
        let placed = designs.map(|design| Placed::new(design?, &nodes, settings.replicas));
        for _ in 0..settings.windows {
            let window = draw_window(&mut rng, &ranks, requests);
            for (placed, off) in placed.iter().zip(&mut off) {
                *off += placed.as_ref().map_or(0, |placed| out_of_balance(&loads(placed, &window), THRESHOLD));
            }
        }
    }
    let counted = f64::from(settings.nodes) * f64::from(settings.clusters.max(1)) * f64::from(settings.windows.max(1));
    let mut shares = off.iter().zip(designs).map(|(off, design)| design.map(|_| *off as f64 / counted));
    Point { load_eighths, requests, keys, out_of_balance: std::array::from_fn(|_| shares.next().flatten()) }
}

fn loads(placed: &Placed, window: &[(Token, u32)]) -> Vec<f64> {
    let mut loads = vec![0.0; placed.len()];
    for (key, requests) in window {
        placed.add(*key, f64::from(*requests), &mut loads);
    }
    loads
}

/// The keys of a window that are asked for, and how often each is.
fn draw_window(rng: &mut Rng, ranks: &Ranks, requests: u32) -> Vec<(Token, u32)> {
    let mut counts = vec![0_u32; ranks.up_to.len()];
    (0..requests).for_each(|_| counts[ranks.draw(rng)] += 1);
    let name = rng.bits().to_be_bytes();
    let key = |rank: u32| Token::of_key(&name, &rank.to_be_bytes());
    (0..).zip(counts).filter(|(_, count)| *count > 0).map(|(rank, count)| (key(rank), count)).collect()
}

/// Keys by popularity, the most popular first.
struct Ranks {
    /// The sum of the weights of each rank and those before it.
    up_to: Vec<f64>,
}

impl Ranks {
    fn new(keys: u32, skew: f64) -> Self {
        let mut sum = 0.0;
        let up_to = (1..=keys).map(|rank| {
            sum += f64::from(rank).powf(-skew);
            sum
        });
        Self { up_to: up_to.collect() }
    }

    /// The rank, from 0, of the key that a request asks for.
    fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.up_to.last().copied().unwrap_or(0.0);
        // 53 bits are what a fraction of f64 holds.
        let point = (rng.bits() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.up_to.partition_point(|up_to| *up_to <= point).min(self.up_to.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        nodes: 30,
        replicas: 3,
        state_bytes: 1 << 16,
        clusters: 5,
        windows: 2,
        keys: 4_000,
        requests: 40_000,
        skew: 0.7,
        seed: 1,
    };

    #[test]
    fn popular_keys_are_asked_for_by_rank() {
        let (ranks, mut rng) = (Ranks::new(3, 1.0), Rng::new(1, Stream::Placement));
        let mut counts = [0; 3];
        (0..11_000).for_each(|_| counts[ranks.draw(&mut rng)] += 1);
        // 1 to 1/2 to 1/3 of eleven sixths.
        for (count, expected) in counts.iter().zip([6_000, 3_000, 2_000_i32]) {
            assert!((*count - expected).abs() < 250, "{counts:?}");
        }
    }

    #[test]
    fn a_window_has_its_requests_and_keys() {
        let window = draw_window(&mut Rng::new(1, Stream::Placement), &Ranks::new(50, 0.0), 2_000);
        assert_eq!(window.len(), 50);
        assert_eq!(window.iter().map(|(_, count)| *count).sum::<u32>(), 2_000);
        let point = measure(Settings { clusters: 1, ..SETTINGS }, 1);
        assert_eq!((point.requests, point.keys), (5_000, 500));
    }

    #[test]
    fn low_load_leaves_more_nodes_out_of_balance() {
        let (low, peak) = (measure(SETTINGS, 1), measure(SETTINGS, 8));
        for (low, peak) in low.out_of_balance.iter().zip(peak.out_of_balance) {
            assert!(low.unwrap() > peak.unwrap(), "{low:?} {peak:?}");
        }
        assert_eq!(measure(SETTINGS, 1), low, "the same seed");
    }

    #[test]
    fn a_uniform_load_on_equal_shares_is_in_balance_and_one_key_is_not() {
        let uniform = Settings { skew: 0.0, keys: 40_000, requests: 400_000, clusters: 1, ..SETTINGS };
        assert_eq!(measure(uniform, 8).out_of_balance[2], Some(0.0));
        let one_key = Settings { keys: 1, ..SETTINGS };
        assert_eq!(measure(one_key, 8).out_of_balance, [Some(1.0); 3]);
        let no_room = Settings { state_bytes: 1 << 10, ..SETTINGS };
        assert_eq!(measure(no_room, 8).out_of_balance[1], None);
    }
}
