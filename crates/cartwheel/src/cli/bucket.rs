use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::RequestArgs;

#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Show the settings of a bucket.
    ///
    /// A bucket needs no creation: a bucket that was never changed has the cluster's defaults.
    Get(BucketGetArgs),
    /// Change settings of a bucket.
    ///
    /// Settings that are not given stay as they are.
    Set(BucketSetArgs),
    /// List changed buckets and the default settings.
    List(RequestArgs),
}

#[derive(Debug, Args)]
pub struct BucketGetArgs {
    /// The bucket.
    pub bucket: String,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub struct BucketSetArgs {
    /// The bucket.
    pub bucket: String,
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ChangeArgs {
    /// Replicas of each key, 1 to 16.
    ///
    /// Replicas of existing keys are adjusted in the background.
    #[arg(short, long)]
    pub n: Option<u8>,
    /// Replicas that must answer a get, 1 to n.
    #[arg(short, long)]
    pub r: Option<u8>,
    /// Replicas that must acknowledge a put, 1 to n.
    #[arg(short, long)]
    pub w: Option<u8>,
    /// How concurrent writes are resolved.
    #[arg(long)]
    pub conflict: Option<Conflict>,
    /// Whether stand-ins take writes for unreachable homes.
    ///
    /// This is the paper's sloppy quorum.
    #[arg(long)]
    pub sloppy: Option<bool>,
    /// When a node acknowledges a write.
    #[arg(long)]
    pub durability: Option<Durability>,
    /// The largest value, in bytes.
    #[arg(long, value_name = "BYTES")]
    pub max_value_bytes: Option<u32>,
}

/// How concurrent writes are resolved.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Conflict {
    /// Keep all concurrent values; a read returns every sibling.
    Siblings,
    /// Last write wins.
    Lww,
}

/// When a node acknowledges a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the write is synced to disk.
    Fsync,
    /// After the write is handed to the operating system.
    Os,
}

const SET_EXAMPLES: &str = "Examples:
  Use last write wins, so that reads return no siblings:
    cartwheel bucket set sessions --conflict lww

  Store five replicas, with read and write quorums that overlap:
    cartwheel bucket set carts --n 5 --r 3 --w 3";
