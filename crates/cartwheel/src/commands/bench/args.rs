//! The arguments of `cartwheel bench`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::BenchError;
use super::compare::CompareArgs;
use super::job::JobSettings;
use super::keys::Keys;
use super::paper::PaperArgs;
use super::staleness::StalenessArgs;
use crate::cli::{Endpoints, FormatArgs};

/// The bucket of the database 0. That of the database N has `-N` after it.
const REDIS_BUCKET: &str = "redis";
const DATABASE_MAX: u32 = 15;

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// The protocol over which the servers are measured.
    #[arg(long, value_enum, default_value_t = BenchProtocol::Http)]
    pub protocol: BenchProtocol,
    /// The bucket, preferably one that nothing else uses [default: bench, or redis with --protocol resp]
    ///
    /// Over the Redis protocol, it is `redis` or `redis-N`: the bucket of the database N.
    #[arg(long)]
    pub bucket: Option<String>,
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
    /// The requests of a write [default: update, or blind with --protocol resp]
    #[arg(long, value_enum)]
    pub writes: Option<Writes>,
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
    /// node that is no home of the key forwards them. `--protocol client` goes by the ring in any case, and follows its changes.
    #[arg(long)]
    pub ring_aware: bool,
    /// The commands in flight on each connection, with --protocol resp.
    ///
    /// A connection sends that many commands at once and waits for all replies. The time of each counts from the sending.
    #[arg(long, value_name = "COMMANDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pipeline: u32,
    /// Connections, each with one operation in flight, or --pipeline.
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

/// The benches with a form of their own.
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
    /// Count stale reads, beside what the nodes predict.
    ///
    /// Writes new keys to a running cluster through one home, reads each through another home some time after its acknowledgement, and counts the
    /// reads that miss the write.
    Staleness(Box<StalenessArgs>),
}

/// The protocol of a bench.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum BenchProtocol {
    /// Plain HTTP to the nodes in turn, without retries.
    Http,
    /// The Redis protocol, GET and SET: to the nodes given, or to any server given as `--node redis://HOST:PORT`.
    Resp,
    /// The ring-aware Rust client, with its retries and hedged reads. Its connections are a pool, which all operations share.
    Client,
}

impl BenchProtocol {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Resp => "resp",
            Self::Client => "client",
        }
    }
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

    /// The workload.
    ///
    /// # Errors
    /// If the protocol cannot carry it.
    pub(super) fn job_settings(&self) -> Result<JobSettings, BenchError> {
        let is_resp = self.protocol == BenchProtocol::Resp;
        if let Some(why) = self.contradiction() {
            return Err(BenchError::Contradiction(why));
        }
        let bucket = self.bucket.as_deref().unwrap_or(if is_resp { REDIS_BUCKET } else { "bench" });
        Ok(JobSettings {
            bucket: bucket.to_owned(),
            keys: self.key_choice(),
            reads: self.reads,
            writes: self.writes.unwrap_or(if is_resp { Writes::Blind } else { Writes::Update }),
            value_bytes: self.value_size as usize,
            strong: self.strong,
            r: self.r,
            w: self.w,
            pipeline: self.pipeline,
            rate: self.rate,
            warmup: Duration::from_secs(self.warmup),
            seconds: self.seconds,
            ops: self.ops,
            timeout: self.timeout(),
        })
    }

    /// What the protocol has no way to do.
    fn contradiction(&self) -> Option<&'static str> {
        let is_resp = self.protocol == BenchProtocol::Resp;
        let is_blind = self.writes.is_none_or(|writes| writes == Writes::Blind);
        if is_resp && !is_blind {
            Some("Redis commands carry no contexts: pass --writes blind, or omit --writes")
        } else if is_resp && (self.strong || self.r.is_some() || self.w.is_some()) {
            Some(
                "Redis commands name no replicas: omit --strong, --r and --w, and set them with `cartwheel bucket set`",
            )
        } else if is_resp && self.database().is_none() {
            Some("the Redis protocol reaches the buckets redis and redis-1 to redis-15: pass one of them as --bucket")
        } else if !is_resp && self.pipeline > 1 {
            Some("only the Redis protocol has pipelines: pass --protocol resp, or omit --pipeline")
        } else if self.pipeline > 1 && self.rate.is_some() {
            Some("the commands of a pipeline are not due one by one: omit --rate or --pipeline")
        } else if self.ring_aware && self.protocol != BenchProtocol::Http {
            Some("--ring-aware is for --protocol http: omit it; --protocol client goes by the ring in any case")
        } else {
            None
        }
    }

    /// The database of Redis that the bucket is; `None` if it is none.
    pub(super) fn database(&self) -> Option<u32> {
        match self.bucket.as_deref() {
            None | Some(REDIS_BUCKET) => Some(0),
            Some(bucket) => {
                let number = bucket.strip_prefix(REDIS_BUCKET)?.strip_prefix('-')?;
                number.parse().ok().filter(|database| (1..=DATABASE_MAX).contains(database))
            }
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
    cartwheel bench --keys 10000 --reads 100% --uniform --seconds 10 --json

  Measure a Redis server, 16 commands in flight on each connection:
    cartwheel bench --load --protocol resp --pipeline 16 --node redis://127.0.0.1:6379";

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn parsed(flags: &str) -> BenchArgs {
        let words = ["bench"].into_iter().chain(flags.split_whitespace());
        <Parsed as clap::Parser>::try_parse_from(words).unwrap().args
    }

    #[test]
    fn buckets_of_the_redis_protocol_are_databases() {
        let database = |flags: &str| parsed(flags).database();
        assert_eq!(
            (database(""), database("--bucket redis"), database("--bucket redis-15")),
            (Some(0), Some(0), Some(15))
        );
        for bad in ["redis-0", "redis-16", "redis-x", "redis1", "carts"] {
            assert_eq!(database(&format!("--bucket {bad}")), None, "{bad}");
        }
    }

    #[test]
    fn each_protocol_has_its_defaults() {
        for (flags, bucket, writes) in [
            ("", "bench", Writes::Update),
            ("--protocol client", "bench", Writes::Update),
            ("--protocol resp --pipeline 8", "redis", Writes::Blind),
            ("--protocol resp --writes blind --bucket redis-2", "redis-2", Writes::Blind),
        ] {
            let settings = parsed(flags).job_settings().unwrap();
            assert_eq!((&*settings.bucket, settings.writes), (bucket, writes), "{flags}");
        }
        for bad in ["--protocol resp --strong", "--protocol resp --w 2", "--protocol resp --pipeline 2 --rate 10"] {
            assert!(matches!(parsed(bad).job_settings(), Err(BenchError::Contradiction(_))), "{bad}");
        }
    }

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
