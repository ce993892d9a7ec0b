//! The arguments of `cartwheel bench`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::compare::CompareArgs;
use super::job::JobSettings;
use super::keys::Keys;
use super::paper::PaperArgs;
use crate::cli::{Endpoints, FormatArgs};

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// The bucket, preferably one that nothing else uses.
    #[arg(long, default_value = "bench")]
    pub bucket: String,
    /// The number of keys.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub keys: u64,
    /// The size of a value; values are random bytes.
    ///
    /// Random bytes cannot be compressed.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=67_108_864))]
    pub value_size: u32,
    /// The share of reads, as 0.95 or 95%.
    ///
    /// YCSB's workload A has 50% reads, workload B 95%.
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share)]
    pub reads: f64,
    /// Choose keys as YCSB does (the default).
    ///
    /// The distribution is scrambled zipfian with theta 0.99: a few keys are chosen far more often than the rest.
    #[arg(long, conflicts_with = "uniform")]
    pub zipfian: bool,
    /// Choose all keys with equal probability.
    #[arg(long)]
    pub uniform: bool,
    /// The requests of a write.
    #[arg(long, value_enum, default_value_t = Writes::Update)]
    pub writes: Writes,
    /// Read from and write to a majority of a key's homes.
    #[arg(long)]
    pub strong: bool,
    /// Replicas that a read waits for [default: the bucket's r]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    pub r: Option<u8>,
    /// Replicas that a write waits for [default: the bucket's w]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    pub w: Option<u8>,
    /// Send each request to the first home of its key.
    ///
    /// The ring is read once, at the beginning. By default each connection sends all its requests to one of the nodes given, and a
    /// node that is no home of the key forwards them.
    #[arg(long)]
    pub ring_aware: bool,
    /// Connections, each with one operation in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Run an open loop with this many operations per second.
    ///
    /// Operations begin on schedule, whether or not earlier ones have ended. The time of an operation counts from its scheduled start.
    /// Operations that found no free connection are skipped and reported. If there are any, the offered load was below this rate: use
    /// more connections or CPU.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// The length of the measurement, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// End early after this many operations, failed ones included.
    #[arg(long, value_name = "COUNT")]
    pub ops: Option<u64>,
    /// The length of the warm-up, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub warmup: u64,
    /// Milliseconds after which an operation counts as failed.
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout_ms: u64,
    /// First put every key once, replacing its value.
    #[arg(long)]
    pub load: bool,
    /// A server process whose CPU time is measured.
    ///
    /// Repeat the flag for each process. By default they are the nodes on this machine.
    #[arg(long)]
    pub pid: Vec<u32>,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// The benches that start the servers themselves.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Compare a local cluster with Redis Cluster.
    ///
    /// Starts three Cartwheel nodes and, if redis-server is on the PATH, a Redis Cluster of three masters with two replicas each, all on
    /// free ports of 127.0.0.1 with temporary data. Fills both with the same keys, runs the same workloads against each in turn, and
    /// prints medians over the rounds. At the end, or on Ctrl-C, it stops the servers and removes their data.
    Compare(Box<CompareArgs>),
    /// Measure what the Dynamo paper measures.
    ///
    /// Starts a cluster on free ports of 127.0.0.1 with temporary data, and prints Table 2, figures 4, 5 and 6 and the versions of
    /// section 6.3, each beside the paper's figures. At the end, or on Ctrl-C, it stops the nodes and removes their data.
    Paper(Box<PaperArgs>),
}

/// The requests of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Writes {
    /// A get and a put with its context, counted and timed as one operation. The put replaces the values of any writer.
    Update,
    /// A put with the latest context that this process received for the key, on any connection. A key is read before its first write.
    /// Overlapping writes of one key make siblings; a write after the next read of the key merges them.
    Known,
    /// A put without a context, for buckets with last write wins. In a bucket that keeps siblings, the siblings accumulate, and
    /// writes of a key fail from the 129th on.
    Blind,
}

impl Writes {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Known => "known",
            Self::Blind => "blind",
        }
    }
}

impl BenchArgs {
    pub(super) fn key_choice(&self) -> Keys {
        if self.uniform { Keys::Uniform(self.keys) } else { Keys::Zipfian(self.keys) }
    }

    pub(super) fn job_settings(&self) -> JobSettings {
        JobSettings {
            bucket: self.bucket.clone(),
            keys: self.key_choice(),
            reads: self.reads,
            writes: self.writes,
            value_bytes: self.value_size as usize,
            strong: self.strong,
            r: self.r,
            w: self.w,
            rate: self.rate,
            warmup: Duration::from_secs(self.warmup),
            seconds: self.seconds,
            ops: self.ops,
            timeout: self.timeout(),
        }
    }

    /// The time limit of an operation.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Parses a share as `0.95` or `95%`.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    let share = number.parse().map(|number: f64| number / unit).unwrap_or(f64::NAN);
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("expected a share from 0 to 1, or from 0% to 100%".to_owned())
    }
}

const EXAMPLES: &str = "Examples:
  Put all keys, then run half reads and half writes through three nodes:
    cartwheel bench --load --keys 10000 \\
      --node 127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083

  Read existing keys, each with equal probability:
    cartwheel bench --keys 10000 --reads 100% --uniform --seconds 10 --json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_numbers_or_percentages() {
        for (text, value) in [("0.95", 0.95), ("95%", 0.95), ("0", 0.0), ("1", 1.0), ("100%", 1.0)] {
            assert_eq!(share(text), Ok(value));
        }
        for bad in ["", "%", "1.01", "101%", "-1", "NaN", "inf", "half"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
