//! What the command line says of a bench.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::{Endpoints, FormatArgs};

/// What to measure.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct BenchArgs {
    /// Where the cluster is.
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// The bucket, best one that nothing else uses.
    #[arg(long, default_value = "bench")]
    pub bucket: String,
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub keys: u64,
    /// The size of a value in bytes; values are random, so nothing compresses them.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=67_108_864))]
    pub value_size: u32,
    /// The share of reads, as 0.95 or 95%; YCSB's workload A has 50%, B 95%.
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share)]
    pub reads: f64,
    /// Choose keys as YCSB does, a few far more often than the rest (scrambled zipfian, theta 0.99). This is the default.
    #[arg(long, conflicts_with = "uniform")]
    pub zipfian: bool,
    /// Choose all keys equally often.
    #[arg(long)]
    pub uniform: bool,
    /// What a write is.
    #[arg(long, value_enum, default_value_t = Writes::Update)]
    pub writes: Writes,
    /// Read and write majorities of a key's homes.
    #[arg(long)]
    pub strong: bool,
    /// How many replicas a read waits for; as the bucket says, if not given.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    pub r: Option<u8>,
    /// How many replicas a write waits for; as the bucket says, if not given.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    pub w: Option<u8>,
    /// How many connections there are, each with one operation in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// An open loop: begin so many operations a second, whether those before have ended or not.
    ///
    /// An operation's time counts from when it was due. One for which no connection was free by then is left out, and counted: with
    /// any of those the clients asked for less than this, so give more connections, or CPU.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// End once so many operations have been carried out or have failed, though the time is not up.
    #[arg(long, value_name = "COUNT")]
    pub ops: Option<u64>,
    /// How long to run before that, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub warmup: u64,
    /// How long an operation may take, in milliseconds, before it counts as failed.
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout_ms: u64,
    /// First put every key once, in the place of what it holds.
    #[arg(long)]
    pub load: bool,
    /// A server process whose CPU time counts; give it again for each. If none is given, the nodes on this machine are asked.
    #[arg(long)]
    pub pid: Vec<u32>,
    /// How to show the outcome.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// What a write is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Writes {
    /// A get and a put with its context, counted and timed as one operation: the value is replaced, whoever wrote it.
    Update,
    /// A put with the latest context that this process was given for the key, by whichever of its connections. A key is read
    /// before its first write. Writes of one key that overlap make siblings, which the next read of the key merges.
    Known,
    /// A put without a context. In a bucket that keeps siblings they pile up, and from the 129th on a key's writes fail: it is
    /// for buckets under last write wins.
    Blind,
}

impl Writes {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Known => "known",
            Self::Blind => "blind",
        }
    }
}

impl BenchArgs {
    /// How long an operation may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// A share as `0.95` or `95%`.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let share = number.parse().map(|number: f64| number / unit).unwrap_or(f64::NAN);
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("give a share from 0 to 1, or from 0% to 100%".to_owned())
    }
}

const EXAMPLES: &str = "Examples:
  The keys first, then half reads and half writes through three nodes:
    cartwheel bench --load --keys 10000 \\
      --node 127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083

  Nothing but reads of what is there, each key as often as any other:
    cartwheel bench --keys 10000 --reads 100% --uniform --seconds 10 --json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (text, value) in [("0.95", 0.95), ("95%", 0.95), ("0", 0.0), ("1", 1.0), ("100%", 1.0)] {
            assert_eq!(share(text), Ok(value));
        }
        for bad in ["", "%", "1.01", "101%", "-1", "NaN", "inf", "half"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
