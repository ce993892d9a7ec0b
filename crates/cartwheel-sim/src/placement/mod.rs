//! A comparison of the paper's three placement strategies (section 6.2, figures 6 and 8).
//!
//! Nodes are placed by the functions of [`cartwheel_core::ring`], and their loads are summed over the resulting preference lists. [`efficiency`] is
//! figure 8, [`imbalance`] is figure 6, and [`ring_state`] measures the size of the membership state as a cluster grows.

pub mod design;
pub mod efficiency;
pub mod imbalance;
pub mod placed;
pub mod ring_state;

use cartwheel_core::value::dot::NodeId;

use crate::rng::Rng;

/// Draws the ids of a cluster's nodes, which decide the positions of tokens under strategies 1 and 2.
pub fn draw_nodes(rng: &mut Rng, count: u32) -> Vec<NodeId> {
    (0..count).map(|_| NodeId::new(rng.bits())).collect()
}
