use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use super::FormatArgs;

/// What to simulate, without any cluster.
#[derive(Debug, Subcommand)]
pub enum SimulateCommand {
    /// Compare the three ways of placing data that the Dynamo paper describes, by placing nodes and adding up their loads.
    ///
    /// Strategy 1 cuts the ring at random tokens of the nodes; strategy 2 gives equal partitions to the next random token; strategy 3
    /// shares out equal partitions evenly, which is what Cartwheel does. First their efficiency (the mean load of a node by that of the
    /// hottest, under a uniform load) against the membership state that each node keeps: the paper's figure 8. Then the share of nodes
    /// whose load is more than 15% off the mean, under a skewed load, as it falls: figure 6.
    Placement(PlacementArgs),
    /// Show what the membership of clusters of 10 to 5,000 nodes takes up, on the wire and in memory, and how long placing them takes.
    RingState(RingStateArgs),
}

/// What to compare.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlacementArgs {
    /// How many nodes there are: the paper's S.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub nodes: u32,
    /// On how many nodes each key lies: the paper's N.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: u8,
    /// What decides about nodes, keys and requests: the same seed gives the same figures.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many clusters, each of other nodes, figures are the mean of.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clusters: u32,
    /// The skewed load: how much membership state each node may keep.
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    pub state: ByteSize,
    /// The skewed load: how many keys are asked for in a window of peak load; a lower load asks for fewer, in proportion.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keys: u32,
    /// The skewed load: how many requests a window of peak load has.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub requests: u32,
    /// The skewed load: the key of rank r is asked for in proportion to 1 / r^SKEW.
    #[arg(long, default_value_t = 0.7, value_parser = skew)]
    pub skew: f64,
    /// How to show the outcome.
    #[command(flatten)]
    pub format: FormatArgs,
    /// Write both charts into this directory too, as figure-6.svg and figure-8.svg.
    #[arg(long, value_name = "DIR")]
    pub svg_dir: Option<PathBuf>,
}

/// How to answer.
#[derive(Debug, Args)]
pub struct RingStateArgs {
    /// How to show the outcome.
    #[command(flatten)]
    pub format: FormatArgs,
}

fn skew(text: &str) -> Result<f64, String> {
    let skew = text.parse().ok().filter(|skew| (0.0..=10.0).contains(skew));
    skew.ok_or_else(|| "give a number from 0 (all keys alike) to 10".to_owned())
}

const EXAMPLES: &str = "Examples:
  cartwheel simulate placement
  cartwheel simulate placement --nodes 100 --svg-dir figures
  cartwheel simulate placement --json";
