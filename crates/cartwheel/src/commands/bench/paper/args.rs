//! The arguments of `cartwheel bench paper`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub struct PaperArgs {
    /// The parts to measure, separated by commas.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values = ["table-2", "latencies", "figure-6", "versions"]
    )]
    pub part: Vec<Part>,
    /// The number of nodes.
    ///
    /// With more nodes than the three homes of a key, some nodes must forward.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(4..=20))]
    pub nodes: u16,
    /// The number of keys.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub keys: u64,
    /// The size of a value; values are random bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub value_size: u32,
    /// Operations per second, half of them reads.
    ///
    /// Table 2 uses this rate. Figures 4 and 5 rise to it and fall to a fifth of it, twice, like the load of two days. The versions of
    /// section 6.3 are counted in a closed loop.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub rate: u32,
    /// Connections, each with one operation in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// The length of each run of Table 2 and section 6.3, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// The rounds of Table 2; its figures are medians over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// The number of points in figures 4 and 5.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub windows: u32,
    /// The time that a point in figures 4 and 5 covers, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub window_seconds: u64,
    /// Keep the nodes' temporary data under this directory.
    ///
    /// It is removed at the end. The default is the system's directory for temporary files. Choose a disk: if the directory is held in
    /// memory, syncs cost nothing.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write figure-4.svg, figure-5.svg and figure-6.svg to this directory.
    #[arg(long, value_name = "DIR")]
    pub svg_dir: Option<PathBuf>,
}

/// A part of the paper's evaluation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Part {
    /// Table 2: latency with server-driven and client-driven coordination.
    #[value(name = "table-2")]
    Table2,
    /// Figure 4, latency over time, and figure 5, buffered against synced writes.
    Latencies,
    /// Figure 6: nodes out of balance, by load.
    #[value(name = "figure-6")]
    Figure6,
    /// Section 6.3: the versions that a read returns, calm and while a node is dead.
    Versions,
}

const NOTES: &str = "What is measured:
  server-driven   each connection sends all its requests to one node, which forwards those of other nodes' keys
  client-driven   a client that knows the ring sends each request to a home of its key
  figures 4, 5    fsync: a write waits until two nodes have synced it; os (the paper's buffered writes): until two have it in memory
  figure 6        computed, as by `cartwheel simulate placement`, for 30 nodes
  section 6.3     each write is a read and a write with its context, in a bucket that keeps siblings

  Clients and nodes share this machine, and the paper's ran in production on hundreds of machines of 2007. Compare the ratios.

Examples:
  cartwheel bench paper
  cartwheel bench paper --part table-2 --rate 1000 --rounds 9
  cartwheel bench paper --svg-dir figures --json paper.json";
