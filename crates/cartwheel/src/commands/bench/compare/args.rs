//! The arguments of `cartwheel bench compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::Durability;

#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub struct CompareArgs {
    /// Measure this store only.
    #[arg(long, value_enum)]
    pub store: Option<StoreName>,
    /// The protocols over which Cartwheel is measured, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["http"])]
    pub protocol: Vec<ProtocolName>,
    /// The workloads, separated by commas.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',', default_values = ["a", "b", "c", "w"])]
    pub workload: Vec<Workload>,
    /// The durability of Cartwheel's buckets, separated by commas.
    ///
    /// Redis runs with appendfsync always beside fsync, and with appendfsync everysec beside os.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["fsync", "os"])]
    pub durability: Vec<Durability>,
    /// Replicas that a read of Cartwheel waits for, separated by commas.
    #[arg(long, value_delimiter = ',', default_values = ["1", "2"], value_parser = clap::value_parser!(u8).range(1..=3))]
    pub r: Vec<u8>,
    /// The number of keys.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub keys: u64,
    /// The size of a value; values are random bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub value_size: u32,
    /// Choose all keys with equal probability.
    ///
    /// By default the distribution is scrambled zipfian with theta 0.99, as in YCSB.
    #[arg(long)]
    pub uniform: bool,
    /// Clients, each with one operation in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Run an open loop with this many operations per second.
    ///
    /// By default each client begins an operation when its last one has ended, so the faster store does more of them, in larger batches
    /// and at a lower CPU time for each. At the same rate, below what either store can do, both have the same work. The time of an
    /// operation counts from its scheduled start; operations that found no free client are skipped and reported.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub rate: Option<u32>,
    /// The rounds; figures are medians over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// The length of each run, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// The length of the warm-up of each run, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warmup: u64,
    /// Milliseconds after which an operation counts as failed.
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub timeout_ms: u64,
    /// Shards of each Cartwheel node [default: the nodes share the machine's cores evenly]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub shards: Option<u32>,
    /// Keep the stores' temporary data under this directory.
    ///
    /// It is removed at the end. The default is the system's directory for temporary files. Choose a disk: if the directory is held in
    /// memory, syncs cost nothing.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the figures of all rounds to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a chart of the server CPU time per operation to this file.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// A store that is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreName {
    /// Cartwheel, three nodes.
    Cartwheel,
    /// Redis Cluster, three masters with two replicas each.
    Redis,
}

/// A protocol of Cartwheel's clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolName {
    /// HTTP.
    Http,
    /// The Redis protocol.
    Resp,
}

/// A mix of reads and writes. The letters of the first three are YCSB's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
pub enum Workload {
    /// 50% reads.
    A,
    /// 95% reads.
    B,
    /// Reads only.
    C,
    /// Writes only.
    W,
}

impl Workload {
    /// The share of reads.
    pub const fn read_share(self) -> f64 {
        match self {
            Self::A => 0.5,
            Self::B => 0.95,
            Self::C => 1.0,
            Self::W => 0.0,
        }
    }
}

const NOTES: &str = "What is compared:
  Both stores keep three copies of each key, on loopback, under the same client and the same load. A write waits for two copies: W=2
  in Cartwheel, SET and WAIT 1 in Redis. Under fsync, Cartwheel has synced both; under appendfsync always, Redis has synced the
  master's. A read of Redis asks one master, whatever R is, so its figure stands beside each R of Cartwheel. The runs of the stores
  alternate. The server CPU time counts user and system time of all processes of a store, and survives a busy machine best; work
  that a store puts off until after a run is not counted.

  KERNEL US     the part of CPU US/OP that the kernel used, mostly for TCP
  CPU/REDIS     Cartwheel's CPU time per operation divided by Redis's, in the same round
  SWITCHES/OP   voluntary context switches of the server's threads
  FILE RW/OP    read and write calls that /proc/PID/io counts; it counts neither send and recv, with which Cartwheel uses its
                sockets, nor fsync and epoll, so compare this figure between versions of one store only
  CLIENT US/OP  CPU time of this process; clients and servers share the machine, so a high figure spoils latencies

Examples:
  cartwheel bench compare
  cartwheel bench compare --workload w --durability fsync --rounds 5 --json compare.json --svg compare.svg
  cartwheel bench compare --rate 2000
  cartwheel bench compare --protocol http,resp
  cartwheel bench compare --store cartwheel --workload c --r 1 --seconds 20";
