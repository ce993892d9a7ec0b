use clap::{Args, Subcommand, ValueEnum};

use super::AskArgs;

/// What to do about buckets.
#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Show how a bucket's keys are kept and served. A bucket needs no creation.
    Get(BucketGetArgs),
    /// Change some of a bucket's settings; the others stay as they are.
    Set(BucketSetArgs),
    /// Show the buckets whose settings were changed, and what all others have.
    List(AskArgs),
}

/// Which bucket.
#[derive(Debug, Args)]
pub struct BucketGetArgs {
    /// The bucket.
    pub bucket: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// What to change.
#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES)]
pub struct BucketSetArgs {
    /// The bucket.
    pub bucket: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// The settings.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The settings to change.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ChangeArgs {
    /// How many nodes keep each key, 1 to 16. Replicas of keys that are there follow in the background.
    #[arg(short, long)]
    pub n: Option<u8>,
    /// How many nodes answer a get, 1 to n.
    #[arg(short, long)]
    pub r: Option<u8>,
    /// How many nodes acknowledge a put, 1 to n.
    #[arg(short, long)]
    pub w: Option<u8>,
    /// What readers see of concurrent writes.
    #[arg(long)]
    pub conflict: Option<Conflict>,
    /// Whether stand-ins take writes for homes that cannot be reached.
    #[arg(long)]
    pub sloppy: Option<bool>,
    /// When a node acknowledges a write.
    #[arg(long)]
    pub durability: Option<Durability>,
    /// The largest value, in bytes.
    #[arg(long, value_name = "BYTES")]
    pub max_value_bytes: Option<u32>,
}

/// What readers see of concurrent writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Conflict {
    /// All of them.
    Siblings,
    /// The last one.
    Lww,
}

/// When a node acknowledges a write.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Durability {
    /// Once it is synced to disk.
    Fsync,
    /// Once the operating system has it.
    Os,
}

const SET_EXAMPLES: &str = "Examples:
  Readers of a session see its last write, and no siblings:
    cartwheel bucket set sessions --conflict lww

  Carts are on five nodes; three answer a get, three acknowledge a put, so that they share one:
    cartwheel bucket set carts --n 5 --r 3 --w 3";
