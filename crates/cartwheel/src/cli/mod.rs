//! The command line.

mod bucket;
mod cluster;
mod config;
mod dev;
mod endpoints;
mod format;
mod renew;
mod serve;
mod simulate;
mod wish;

use std::path::PathBuf;
use std::time::Duration;

use cartwheel_client::Context;
use clap::{Args, Parser, Subcommand};

use crate::commands::bench::BenchArgs;
use crate::commands::load::LoadArgs;
use crate::commands::verify::VerifyArgs;
use crate::terminal::exit::HELP;

pub use bucket::{BucketCommand, ChangeArgs};
pub use cluster::{ApplyArgs, AskArgs, ClusterCommand, LocateArgs};
pub use config::{ConfigCommand, SettingsArgs};
pub use dev::DevArgs;
pub(crate) use endpoints::node_timeout;
pub use endpoints::{ENDPOINTS, Endpoints};
pub use format::{Format, FormatArgs};
pub use renew::RenewArgs;
pub use serve::ServeArgs;
pub use simulate::{PlacementArgs, RingStateArgs, SimulateCommand};

/// An always-writeable, leaderless, replicated key-value store: Amazon's Dynamo as one binary.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine, one process a node, until Ctrl-C.
    ///
    /// The first start founds the cluster; later ones find its data again. Node i has its data in DIR/node-i, HTTP on port
    /// 8080+i and peers on port 7400+i of 127.0.0.1. A node that dies stays dead, so that you can see what the others do: start
    /// it again with `cartwheel serve`.
    Dev(DevArgs),
    /// Run one node until SIGTERM or Ctrl-C.
    ///
    /// Every setting below can be given as a flag, as an environment variable and in a TOML file, under the same name: the flag
    /// --cache-size is CARTWHEEL_CACHE_SIZE in the environment and cache_size in the file. A flag goes before a variable, a variable
    /// before the file, the file before the default. A name that the file has and cartwheel does not is an error.
    ///
    /// Sizes are in bytes, or have a unit: 268435456 and 256MiB are the same.
    Serve(Box<ServeArgs>),
    /// Show or check the settings of a node.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a new, empty data directory for a node that has lost its own.
    ///
    /// The node keeps its name, its addresses and its partitions, and begins a new incarnation; the old one is refused from then on. What
    /// it holds counts, key by key, once it holds what the other homes hold.
    Renew(RenewArgs),
    /// Show a key; all siblings, where writers did not know of each other. The exit status is 1 if it has no value.
    Get(GetArgs),
    /// Write a key in the place of all that a get of it shows.
    Put(PutArgs),
    /// Delete all that a get of a key shows.
    Delete(DeleteArgs),
    /// Load a file of JSON Lines, CSV or TSV into a bucket.
    ///
    /// Each record takes the place of what its key holds; of records with one key the last stays. If it is stopped or killed, the
    /// same command goes on where everything before is stored.
    Load(LoadArgs),
    /// Measure a running cluster: a closed loop of reads and writes over HTTP, or an open one with --rate.
    ///
    /// Without --load the keys must be there already. Ctrl-C ends the run and reports what was measured so far.
    Bench(BenchArgs),
    /// Prove that every key is equal on all its replicas, by reading what every node's disk holds.
    ///
    /// The cluster goes on serving meanwhile. Records that stand-ins hold for homes are counted, and are no differences.
    Verify(VerifyArgs),
    /// How the keys of a bucket are kept and served.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// What a node knows of its cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Compare how data can be placed, and see what membership costs, by computation: no cluster is asked.
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Print a script that completes this command line in a shell.
    ///
    /// For bash: cartwheel completions bash > ~/.local/share/bash-completion/completions/cartwheel
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// Which key of which cluster.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Whom to ask.
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// How long it may take in all, as 2s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = endpoints::time)]
    pub timeout: Duration,
    /// Read and write majorities of the key's homes.
    #[arg(long)]
    pub strong: bool,
    /// Answer in JSON, with values in base64.
    #[arg(long)]
    pub json: bool,
}

/// What to show.
#[derive(Debug, Args)]
#[command(after_help = GET_EXAMPLES)]
pub struct GetArgs {
    /// Which key.
    #[command(flatten)]
    pub at: KeyArgs,
    /// Write the value into this file, as it is; of several siblings that makes no sense.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub output: Option<PathBuf>,
}

/// What to write.
#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
pub struct PutArgs {
    /// Which key.
    #[command(flatten)]
    pub at: KeyArgs,
    /// The value; - reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// Do not read first: the value stands beside whatever is there.
    #[arg(long)]
    pub blind: bool,
    /// Do not read first: replace what this context was shown, as `get --json` and `put --json` give it.
    #[arg(long, conflicts_with = "blind", value_parser = context)]
    pub context: Option<Context>,
    /// The value's media type.
    #[arg(long, default_value = "text/plain; charset=utf-8")]
    pub content_type: String,
    /// How the value is encoded, as gzip: it is kept with the value, which is stored as it is.
    #[arg(long, value_name = "ENCODING")]
    pub content_encoding: Option<String>,
}

/// What to delete.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Which key.
    #[command(flatten)]
    pub at: KeyArgs,
    /// Do not read first: delete what this context was shown, as `get --json` and `put --json` give it.
    #[arg(long, value_parser = context)]
    pub context: Option<Context>,
}

fn context(text: &str) -> Result<Context, String> {
    text.parse().map_err(|_| "it is no context: give one as `cartwheel get --json` shows it".to_owned())
}

const EXAMPLES: &str = "A first look, in two terminals:
  cartwheel dev
  cartwheel put greetings world hello
  cartwheel get greetings world --node 127.0.0.1:8083
  cartwheel cluster status";

const GET_EXAMPLES: &str = "Examples:
  cartwheel get carts alice
  cartwheel get carts alice --json --node 127.0.0.1:8081,127.0.0.1:8082";

const PUT_EXAMPLES: &str = "Examples:
  Replace whatever is there, siblings too:
    cartwheel put carts alice 'milk, bread'

  A file as it is:
    cartwheel put pictures cat - --content-type image/png < cat.png

  Make two siblings, to see some:
    cartwheel put carts alice milk --blind
    cartwheel put carts alice bread --blind";
