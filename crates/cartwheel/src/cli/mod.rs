//! The command line.

mod backup;
mod bucket;
mod cert;
mod cluster;
mod config;
mod debug;
mod dev;
mod endpoints;
mod format;
mod login;
mod member_change;
mod ready;
mod renew;
mod serve;
mod simulate;
mod top;
mod user;

use std::path::PathBuf;
use std::time::Duration;

use cartwheel_client::Context;
use clap::{Args, Parser, Subcommand};

use crate::commands::bench::BenchArgs;
use crate::commands::load::LoadArgs;
use crate::commands::verify::VerifyArgs;
use crate::terminal::exit::HELP;

pub use backup::{
    BackupCommand, BackupCreateArgs, BackupListArgs, BackupPlace, BackupPruneArgs, BackupRestoreArgs, BackupVerifyArgs,
};
pub use bucket::{BucketCommand, BucketDeleteArgs, ChangeArgs, Durability};
pub use cert::{AUTHORITY_DAYS, CaArgs, CertCommand, CertDir, ClientCertArgs, DAYS, LOCAL_HOSTS, NodeCertArgs};
pub use cluster::{ApplyArgs, ClusterCommand, DrainArgs, HealthArgs, LocateArgs, RequestArgs, StatusArgs};
pub use config::{ConfigCommand, SettingsArgs};
pub use debug::{BundleArgs, DebugCommand};
pub use dev::DevArgs;
pub(crate) use endpoints::node_timeout;
pub use endpoints::{ENDPOINTS, Endpoints};
pub use format::{Format, FormatArgs};
pub use login::{VARIABLES as LOGIN_VARIABLES, secret_of};
pub use ready::ReadyArgs;
pub use renew::RenewArgs;
pub use serve::ServeArgs;
pub use simulate::{PlacementArgs, RingStateArgs, SimulateCommand};
pub use top::TopArgs;
pub use user::{TokenCommand, UserCommand, UserSetArgs};

/// An always-writeable, leaderless, replicated key-value store: Amazon's Dynamo as one binary.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a cluster on this machine until Ctrl-C.
    ///
    /// Each node is a process. The first start bootstraps the cluster; later starts use its data. Node i keeps its data in DIR/node-i,
    /// serves HTTP on port 8080+i and listens for peers on port 7400+i of 127.0.0.1. A node that dies is not restarted, so that you
    /// can watch the other nodes; restart it with `cartwheel serve`.
    Dev(DevArgs),
    /// Run one node until SIGTERM or Ctrl-C.
    ///
    /// Every setting below can be given as a flag, as an environment variable and in a TOML file, under the same name: the flag
    /// --cache-size is CARTWHEEL_CACHE_SIZE in the environment and cache_size in the file. A flag overrides a variable, a variable
    /// overrides the file, and the file overrides the default. An unknown name in the file is an error.
    ///
    /// Sizes are in bytes, or have a unit: 268435456 and 256MiB are the same.
    Serve(Box<ServeArgs>),
    /// Show or check the settings of a node.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Create a data directory for a node that lost its disk.
    ///
    /// The directory is empty. The node keeps its name, its addresses and its partitions, and begins a new incarnation; the other
    /// nodes refuse the old incarnation from then on. The node's replica of a key counts in quorums again once the node has received
    /// what the key's other homes hold.
    Renew(RenewArgs),
    /// Show the value of a key.
    ///
    /// A key with concurrent writes has several siblings, and all are shown. The exit status is 1 if the key has no value.
    Get(GetArgs),
    /// Write a key.
    ///
    /// The new value replaces all values that a get of the key returns.
    Put(PutArgs),
    /// Delete a key.
    ///
    /// The delete removes all values that a get of the key returns.
    Delete(DeleteArgs),
    /// List the keys of a bucket.
    ///
    /// The keys that have a value are listed in the order of their places on the ring. The exit status is 1 if there are none.
    Keys(KeysArgs),
    /// Write all keys of a bucket with their siblings to a file.
    ///
    /// Each line is a JSON object: the key, percent-encoded, and its siblings with values in base64, media types, encodings and the seconds
    /// that are left of their lifetimes. `cartwheel load` takes it back. A key that is written meanwhile is exported as it was before or after.
    Export(ExportArgs),
    /// Load a file of JSON Lines, CSV or TSV, or an export, into a bucket.
    ///
    /// Each record replaces the value of its key; of several records with one key, the last one remains. After a load was stopped or
    /// killed, the same command resumes after the last position before which all records are stored.
    Load(LoadArgs),
    /// Measure a running cluster, or a Redis server.
    ///
    /// The load is a closed loop of reads and writes, or an open loop with --rate. Without --load the keys must already exist. Ctrl-C
    /// ends the run and reports the measurements so far.
    Bench(BenchArgs),
    /// Verify that all replicas of every key are equal.
    ///
    /// The command reads the records on every node's disk while the cluster serves requests. Records that stand-ins hold for homes are
    /// counted, but not as differences.
    Verify(VerifyArgs),
    /// Back up the cluster, and restore backups.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Show or change the settings of buckets.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Show the cluster or change its members.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Show or change users, their roles and access tokens.
    ///
    /// Once a cluster has a user, all clients have to be one. The first user needs the role admin:* and a password.
    #[command(subcommand)]
    User(UserCommand),
    /// Collect facts for support.
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Check that a node is ready for requests.
    ///
    /// Of several nodes, one that is ready is enough. The exit status is 0 if one is, 4 if those that answer are not, and 3 if none
    /// answers. It needs no user, so it fits health checks and start scripts.
    Ready(ReadyArgs),
    /// Show the load of all nodes, live.
    ///
    /// Every node is asked for its metrics, and one of them for the state of the cluster. Keys sort, pause and quit; the last line names them.
    Top(TopArgs),
    /// Make certificates for TLS.
    ///
    /// An organization with a certificate authority of its own does not need this.
    #[command(subcommand)]
    Cert(CertCommand),
    /// Compute placement and membership costs.
    ///
    /// The commands need no running cluster.
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Print a shell completion script.
    ///
    /// For bash: cartwheel completions bash > ~/.local/share/bash-completion/completions/cartwheel
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    ///
    /// The directory gets one page for each command: cartwheel.1, cartwheel-get.1 and so on.
    Man {
        /// The directory, which is created if it is missing.
        dir: PathBuf,
    },
}

/// A key, and how to reach it.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// The time limit of the command, as 2s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = endpoints::time)]
    pub timeout: Duration,
    /// Read from and write to a majority of the key's homes.
    #[arg(long)]
    pub strong: bool,
    /// Print JSON, with values in base64.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub struct GetArgs {
    #[command(flatten)]
    pub at: KeyArgs,
    /// Write the value to this file, unchanged.
    ///
    /// This fails if the key has siblings.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = KEYS_EXAMPLES)]
pub struct KeysArgs {
    /// The bucket.
    pub bucket: String,
    /// List only keys that begin with this.
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// The most keys to list.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// How many replicas of each partition to ask; the default is one.
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(1..))]
    pub r: Option<u8>,
    /// End each key with a zero byte, not a new line, as `xargs -0` reads it.
    #[arg(short = '0', long)]
    pub null: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The bucket.
    pub bucket: String,
    /// The file, which is complete once it has this name; standard output by default.
    ///
    /// A name that ends in .export.jsonl tells `cartwheel load` what it is.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Export only keys that begin with this.
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// The number of keys to read at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub connections: u16,
    #[command(flatten)]
    pub endpoints: Endpoints,
}

#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
pub struct PutArgs {
    #[command(flatten)]
    pub at: KeyArgs,
    /// The value; - reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// Write without a read; existing values remain as siblings.
    #[arg(long)]
    pub blind: bool,
    /// Write without a read, with this context.
    ///
    /// The value replaces the values that the context covers. `get --json` and `put --json` print contexts.
    #[arg(long, conflicts_with = "blind", value_parser = context)]
    pub context: Option<Context>,
    /// The value's media type.
    #[arg(long, default_value = "text/plain; charset=utf-8")]
    pub content_type: String,
    /// The value's encoding, as gzip; it is stored with the value.
    ///
    /// The value itself is stored unchanged.
    #[arg(long, value_name = "ENCODING")]
    pub content_encoding: Option<String>,
    /// Let the value expire after this time, such as 90s, 30m or 7d.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    pub at: KeyArgs,
    /// Delete without a read, with this context.
    ///
    /// The delete removes the values that the context covers. `get --json` and `put --json` print contexts.
    #[arg(long, value_parser = context)]
    pub context: Option<Context>,
}

fn context(text: &str) -> Result<Context, String> {
    text.parse().map_err(|_| "not a context: pass the `context` that `cartwheel get --json` prints".to_owned())
}

const EXAMPLES: &str = "Try it in two terminals:
  cartwheel dev
  cartwheel put greetings world hello
  cartwheel get greetings world --node 127.0.0.1:8083
  cartwheel cluster status";

const KEYS_EXAMPLES: &str = "Examples:
  cartwheel keys carts --prefix user-
  cartwheel keys carts --json";

const GET_EXAMPLES: &str = "Examples:
  cartwheel get carts alice
  cartwheel get carts alice --json --node 127.0.0.1:8081,127.0.0.1:8082";

const PUT_EXAMPLES: &str = "Examples:
  Replace all values of a key, siblings included:
    cartwheel put carts alice 'milk, bread'

  Store the bytes of a file:
    cartwheel put pictures cat - --content-type image/png < cat.png

  Create two siblings:
    cartwheel put carts alice milk --blind
    cartwheel put carts alice bread --blind";
