use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

use crate::config::Settings;

/// How to run a node.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ServeArgs {
    /// Read settings from this TOML file; CARTWHEEL_CONFIG names one too.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Stop when standard input ends. `cartwheel dev` holds it open, so that its nodes never outlive it.
    #[arg(long)]
    pub stop_with_stdin: bool,
    /// How a node that has no data directory comes to one.
    #[command(flatten)]
    pub new: NewNodeArgs,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// How a node that has no data directory yet founds a cluster, or is let into one. Once it has one, none of this counts.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "A node without a data directory")]
pub struct NewNodeArgs {
    /// What it is called: no other node of the cluster may be.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where nodes of the cluster listen for peers; names are resolved again each time. It then waits until an administrator lets it
    /// in with `cartwheel cluster add NAME`.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub seed: Vec<String>,
    /// Be let in at once, without an administrator.
    #[arg(long, requires = "seed", conflicts_with = "bootstrap")]
    pub join: bool,
    /// Found a cluster of which it is the only node. Refused if a seed answers.
    #[arg(long)]
    pub bootstrap: bool,
    /// Its zone: homes of a key are in as many zones as there are.
    #[arg(long, value_name = "ZONE", default_value = "")]
    pub zone: String,
    /// Its machine: within a zone, homes of a key are on as many machines as there are. Nameless, it is one of its own.
    #[arg(long, value_name = "HOST", default_value = "")]
    pub host: String,
    /// Where other nodes reach it, if not at --peer-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_address: Option<String>,
    /// Where clients reach it, if not at --http-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub http_address: Option<String>,
    /// How many shards its data is divided among; one a core if not said.
    #[arg(long, value_name = "COUNT")]
    pub shards: Option<NonZeroU32>,
}

const EXAMPLES: &str = "Examples:
  The first node of a cluster that `cartwheel dev --dir ./data` has made, with more memory and a log for programs:
    cartwheel serve --dir ./data/node-1 --cache-size 1GiB --log-format json

  The same with a file, and one setting from the environment:
    cat > node-1.toml <<END
    dir = \"./data/node-1\"
    cache_size = \"1GiB\"
    log_format = \"json\"
    END
    CARTWHEEL_LOG_LEVEL=debug cartwheel serve --config node-1.toml

  On all interfaces of a machine whose network is yours alone:
    cartwheel serve --dir ./data/node-1 --http-listen 0.0.0.0:8081 --insecure";
