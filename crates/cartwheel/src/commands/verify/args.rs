//! What the command line says of a verification.

use clap::Args;

use crate::cli::{Endpoints, FormatArgs};

/// How to verify.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Where the cluster is.
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// Nothing is on its way any more: hints that stand-ins still hold, keys that were being written all the time, and partitions with
    /// too few replicas count as differences.
    #[arg(long)]
    pub settled: bool,
    /// For how long a key that differs is read again, in seconds, before it counts as different: writes go on meanwhile.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=3_600))]
    pub patience: u64,
    /// How many differing keys to list; all are counted.
    #[arg(long, value_name = "KEYS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(..=10_000))]
    pub list: u16,
    /// How many partitions are compared at once.
    #[arg(long, value_name = "PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// How to show the outcome.
    #[command(flatten)]
    pub format: FormatArgs,
}

const EXAMPLES: &str = "The exit status is 0 if every key is equal on all its replicas, and 1 if one is not, or if a replica could not be read.

Examples:
  cartwheel verify
  cartwheel verify --settled --json --node 127.0.0.1:8081,127.0.0.1:8082";
