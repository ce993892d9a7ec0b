use std::num::NonZeroU32;
use std::path::PathBuf;

use cartwheel_server::config::Tuning;
use cartwheel_server::lifecycle::bootstrap::Ports;
use clap::Args;

/// How to run a cluster.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many nodes; 3 for a new cluster, and what is there for one that was founded before.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub nodes: Option<u16>,
    /// Where the nodes keep their data.
    #[arg(long, default_value = "./cartwheel-data")]
    pub dir: PathBuf,
    /// For a new cluster: how many shards each node has, each with a thread and a store of its own; by default a fair share of
    /// this machine's cores.
    #[arg(long)]
    pub shards: Option<NonZeroU32>,
    /// Node i serves HTTP on this port plus i [default: 8080; for a cluster that was founded before, where it was]
    #[arg(long, value_name = "PORT")]
    pub http_base: Option<u16>,
    /// Node i listens for peers on this port plus i [default: 7400; for a cluster that was founded before, where it was]
    #[arg(long, value_name = "PORT")]
    pub peer_base: Option<u16>,
    /// For every node.
    #[command(flatten)]
    pub tuning: Tuning,
}

impl DevArgs {
    /// The ports of a new cluster.
    pub fn ports(&self) -> Ports {
        let default = Ports::default();
        Ports {
            http_base: self.http_base.unwrap_or(default.http_base),
            peer_base: self.peer_base.unwrap_or(default.peer_base),
            ..default
        }
    }
}
