//! The arguments of `cartwheel verify`.

use clap::Args;

use crate::cli::{Endpoints, FormatArgs};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// Require a cluster at rest.
    ///
    /// Hints that stand-ins still hold, keys that were being written during the whole verification, and partitions with too few replicas
    /// count as differences.
    #[arg(long)]
    pub settled: bool,
    /// Seconds to re-read a key before it counts as different.
    ///
    /// Replicas can differ for a moment while writes continue.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=3_600))]
    pub patience: u64,
    /// The number of differing keys to list; all are counted.
    #[arg(long, value_name = "KEYS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(..=10_000))]
    pub list: u16,
    /// The number of partitions to compare at the same time.
    #[arg(long, value_name = "PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    #[command(flatten)]
    pub format: FormatArgs,
}

const EXAMPLES: &str = "The exit status is 0 if every key is equal on all its replicas, and 1 if a key differs or a replica could not be read.

Examples:
  cartwheel verify
  cartwheel verify --settled --json --node 127.0.0.1:8081,127.0.0.1:8082";
