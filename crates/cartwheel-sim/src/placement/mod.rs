//! The paper's three ways to place data, compared (section 6.2, figures 6 and 8).
//!
//! Nodes are really placed, by the functions of [`cartwheel_core::ring`], and their loads are added up from the preference lists
//! that come of it. [`efficiency`] is figure 8, [`imbalance`] figure 6, and [`ring_state`] says what membership costs as a cluster
//! grows.

pub mod chart;
pub mod design;
pub mod efficiency;
pub mod imbalance;
pub mod placed;
pub mod ring_state;

use cartwheel_core::value::dot::NodeId;

use crate::rng::Rng;

/// The ids of a cluster's nodes, drawn at random: they decide where the tokens of strategies 1 and 2 lie.
pub fn draw_nodes(rng: &mut Rng, count: u32) -> Vec<NodeId> {
    (0..count).map(|_| NodeId::new(rng.bits())).collect()
}
