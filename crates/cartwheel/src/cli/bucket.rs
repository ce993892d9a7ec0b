use cartwheel_client::Placement;
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
    /// List buckets with their sizes, and the default settings.
    List(RequestArgs),
    /// Show how soon reads of a bucket see a write.
    ///
    /// A node predicts it for each R and W from the times that it has measured. A read through the node that coordinated the write always sees it;
    /// the prediction is for a read through another home.
    Staleness(BucketStalenessArgs),
    /// Delete all keys of a bucket.
    ///
    /// The bucket is empty at once, and nothing of what it held comes back. Its settings stay. The space is freed in the background.
    Delete(BucketDeleteArgs),
}

#[derive(Debug, Args)]
pub struct BucketDeleteArgs {
    /// The bucket.
    pub bucket: String,
    /// Delete without a question.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Debug, Args)]
pub struct BucketStalenessArgs {
    /// The bucket.
    pub bucket: String,
    /// The time from the acknowledgement of a write to the read, in milliseconds [default: several]
    #[arg(short = 't', long, value_name = "MS", value_parser = millis)]
    pub after: Option<f64>,
    #[command(flatten)]
    pub request: RequestArgs,
}

fn millis(text: &str) -> Result<f64, String> {
    let millis = text.parse().ok().filter(|millis| (0.0..=3_600_000.0).contains(millis));
    millis.ok_or_else(|| "expected milliseconds from 0 to 3600000, such as 5 or 0.5".to_owned())
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
    /// What decides a key's place on the ring: name, slot or prefix:BYTES.
    ///
    /// It can be changed only while the bucket holds no keys. With slot, cluster clients of Redis find the nodes of a key; with prefix:8, keys
    /// with the same first 8 bytes lie side by side.
    #[arg(long, value_parser = placement)]
    pub placement: Option<Placement>,
    /// Whether to keep an index of the keys, without which they cannot be listed.
    ///
    /// It can be changed only while the bucket holds no keys.
    #[arg(long)]
    pub index: Option<bool>,
}

fn placement(text: &str) -> Result<Placement, String> {
    let prefix = || text.strip_prefix("prefix:")?.parse().ok().map(Placement::Prefix);
    match text {
        "name" => Ok(Placement::Name),
        "slot" => Ok(Placement::Slot),
        _ => prefix().ok_or_else(|| "not a placement: use name, slot or prefix:BYTES".to_owned()),
    }
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
