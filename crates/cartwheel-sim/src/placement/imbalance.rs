//! The paper's figure 6: the share of nodes that are out of balance, by load.
//!
//! The paper counts, in windows of half an hour, the nodes whose requests differ from the mean by more than 15% (section 6.2). With fewer
//! requests there are more of them: "during low loads (where load is 1/8th of the measured peak load), fewer popular keys are accessed,
//! resulting in a higher load imbalance". Here, a window at a fraction of the peak load has that fraction of the peak's requests and of its
//! keys. The keys change from window to window, and their popularity follows Zipf's law. Every request is drawn, and goes to all homes of its key.
//!
//! Amazon's trace is not public, and the paper gives neither its skew nor its number of keys. So only the trend can be compared with figure 6
//! (20% of the nodes at low load, 10% at high load); the level depends on the assumed keys and skew.

use cartwheel_core::value::token::Token;
use serde::Serialize;

use super::design::{Design, Strategy};
use super::draw_nodes;
use super::placed::{Placed, out_of_balance};
use crate::rng::{Rng, Stream};

/// The largest difference of a node in balance from the mean load, as a fraction of it: the paper's 15%.
pub const THRESHOLD: f64 = 0.15;

/// The levels of load to compare, in eighths of the peak. The paper's low load is 1.
pub const LEVELS: std::ops::RangeInclusive<u32> = 1..=8;

/// The parameters of a measurement of imbalance.
#[derive(Clone, Copy, Debug)]
pub struct ImbalanceSettings {
    /// The number of nodes.
    pub nodes: u32,
    /// The number of replicas of each key.
    pub replicas: usize,
    /// The size of the membership state on each node, in bytes, for each strategy.
    pub state_bytes: u64,
    /// The number of clusters, each with other nodes.
    pub clusters: u32,
    /// The number of windows in each cluster, each with other keys.
    pub windows: u32,
    /// The number of keys in a window of peak load.
    pub keys: u32,
    /// The number of requests in a window of peak load.
    pub requests: u32,
    /// The skew: the popularity of the key of rank r is proportional to 1 / r^skew. 0 is uniform.
    pub skew: f64,
    /// The seed of nodes, keys and requests.
    pub seed: u64,
}

/// The imbalance at one level of load.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ImbalancePoint {
    /// The load, in eighths of the peak.
    pub load_eighths: u32,
    /// The number of requests in a window.
    pub requests: u32,
    /// The number of keys from which they draw.
    pub keys: u32,
    /// The share of nodes out of balance under strategies 1, 2 and 3; `None` if a strategy needs more state.
    pub out_of_balance: [Option<f64>; 3],
}

/// Measures one level of load, in eighths of the peak.
pub fn measure(settings: ImbalanceSettings, load_eighths: u32) -> ImbalancePoint {
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
    ImbalancePoint { load_eighths, requests, keys, out_of_balance: std::array::from_fn(|_| shares.next().flatten()) }
}

fn loads(placed: &Placed, window: &[(Token, u32)]) -> Vec<f64> {
    let mut loads = vec![0.0; placed.len()];
    for (key, requests) in window {
        placed.add(*key, f64::from(*requests), &mut loads);
    }
    loads
}

/// The requested keys of a window, and the number of requests of each.
fn draw_window(rng: &mut Rng, ranks: &Ranks, requests: u32) -> Vec<(Token, u32)> {
    let mut counts = vec![0_u32; ranks.up_to.len()];
    (0..requests).for_each(|_| counts[ranks.draw(rng)] += 1);
    let name = rng.bits().to_be_bytes();
    let key = |rank: u32| Token::of_key(&name, &rank.to_be_bytes());
    (0..).zip(counts).filter(|(_, count)| *count > 0).map(|(rank, count)| (key(rank), count)).collect()
}

/// The popularity of keys, most popular first.
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

    /// The rank, from 0, of a random request's key.
    fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.up_to.last().copied().unwrap_or(0.0);
        // A fraction in f64 has 53 bits.
        let point = (rng.bits() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.up_to.partition_point(|up_to| *up_to <= point).min(self.up_to.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ImbalanceSettings = ImbalanceSettings {
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
    fn keys_are_drawn_by_their_popularity() {
        let (ranks, mut rng) = (Ranks::new(3, 1.0), Rng::new(1, Stream::Placement));
        let mut counts = [0; 3];
        (0..11_000).for_each(|_| counts[ranks.draw(&mut rng)] += 1);
        // The weights 1, 1/2 and 1/3 have the sum 11/6.
        for (count, expected) in counts.iter().zip([6_000, 3_000, 2_000_i32]) {
            assert!((*count - expected).abs() < 250, "{counts:?}");
        }
    }

    #[test]
    fn a_window_has_its_number_of_requests_and_keys() {
        let window = draw_window(&mut Rng::new(1, Stream::Placement), &Ranks::new(50, 0.0), 2_000);
        assert_eq!(window.len(), 50);
        assert_eq!(window.iter().map(|(_, count)| *count).sum::<u32>(), 2_000);
        let point = measure(ImbalanceSettings { clusters: 1, ..SETTINGS }, 1);
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
    fn a_uniform_load_on_equal_shares_is_in_balance_and_a_single_key_is_not() {
        let uniform = ImbalanceSettings { skew: 0.0, keys: 40_000, requests: 400_000, clusters: 1, ..SETTINGS };
        assert_eq!(measure(uniform, 8).out_of_balance[2], Some(0.0));
        let one_key = ImbalanceSettings { keys: 1, ..SETTINGS };
        assert_eq!(measure(one_key, 8).out_of_balance, [Some(1.0); 3]);
        let no_room = ImbalanceSettings { state_bytes: 1 << 10, ..SETTINGS };
        assert_eq!(measure(no_room, 8).out_of_balance[1], None);
    }
}
