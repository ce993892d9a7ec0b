use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use super::FormatArgs;

#[derive(Debug, Subcommand)]
pub enum SimulateCommand {
    /// Compare the placement strategies of the Dynamo paper.
    ///
    /// Strategy 1 cuts the ring at random tokens of the nodes. Strategy 2 assigns equal partitions to the next random token. Strategy 3
    /// spreads equal partitions evenly; Cartwheel uses it. The first table shows the efficiency (the mean load of a node divided by the
    /// load of the hottest node, under a uniform load) against the membership state that each node keeps: the paper's figure 8. The
    /// second table shows the share of nodes whose load is more than 15% off the mean, under a skewed load that falls: figure 6.
    Placement(PlacementArgs),
    /// Show what membership costs as a cluster grows.
    ///
    /// For clusters of 10 to 5,000 nodes: the size of the membership on the wire and in memory, and the time that placement takes.
    RingState(RingStateArgs),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlacementArgs {
    /// The number of nodes: the paper's S.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub nodes: u32,
    /// Replicas of each key: the paper's N.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: u8,
    /// The seed of nodes, keys and requests.
    ///
    /// The same seed gives the same figures.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The number of random clusters to average over.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clusters: u32,
    /// Skewed load: the membership state that a node may keep.
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    pub state: ByteSize,
    /// Skewed load: keys requested in a window of peak load.
    ///
    /// A lower load requests proportionally fewer keys.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keys: u32,
    /// Skewed load: requests in a window of peak load.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub requests: u32,
    /// Skewed load: key of rank r has weight 1 / r^SKEW.
    #[arg(long, default_value_t = 0.7, value_parser = skew)]
    pub skew: f64,
    #[command(flatten)]
    pub format: FormatArgs,
    /// Write figure-6.svg and figure-8.svg to this directory.
    #[arg(long, value_name = "DIR")]
    pub svg_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RingStateArgs {
    #[command(flatten)]
    pub format: FormatArgs,
}

fn skew(text: &str) -> Result<f64, String> {
    let skew = text.parse().ok().filter(|skew| (0.0..=10.0).contains(skew));
    skew.ok_or_else(|| "expected a number from 0 (uniform) to 10".to_owned())
}

const EXAMPLES: &str = "Examples:
  cartwheel simulate placement
  cartwheel simulate placement --nodes 100 --svg-dir figures
  cartwheel simulate placement --json";
