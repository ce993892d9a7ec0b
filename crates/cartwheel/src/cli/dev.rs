use std::num::NonZeroU32;
use std::path::PathBuf;

use cartwheel_server::config::Tuning;
use cartwheel_server::lifecycle::bootstrap::Ports;
use clap::Args;

#[derive(Debug, Args)]
pub struct DevArgs {
    /// The number of nodes [default: 3, or the existing number]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub nodes: Option<u16>,
    /// The directory for the nodes' data.
    #[arg(long, default_value = "./cartwheel-data")]
    pub dir: PathBuf,
    /// Shards of each node of a new cluster.
    ///
    /// Each shard has its own thread and store. By default the nodes share the machine's cores evenly.
    #[arg(long)]
    pub shards: Option<NonZeroU32>,
    /// Serve HTTP of node i on this port plus i.
    ///
    /// The default is 8080. An existing cluster keeps its ports by default.
    #[arg(long, value_name = "PORT")]
    pub http_base: Option<u16>,
    /// Serve Redis clients of node i on this port plus i.
    ///
    /// The default is 6380. An existing cluster keeps its ports by default. A node whose default port is in use serves no Redis clients.
    #[arg(long, value_name = "PORT")]
    pub resp_base: Option<u16>,
    /// Listen for peers of node i on this port plus i.
    ///
    /// The default is 7400. An existing cluster keeps its ports by default.
    #[arg(long, value_name = "PORT")]
    pub peer_base: Option<u16>,
    /// Use TLS between nodes and with clients, with certificates in DIR/certs.
    ///
    /// The certificates are made if they are not there. Commands reach the nodes with --tls-ca DIR/certs/ca.crt.
    #[arg(long)]
    pub tls: bool,
    #[command(flatten)]
    pub tuning: Tuning,
}

impl DevArgs {
    /// The base ports of a new cluster.
    pub fn ports(&self) -> Ports {
        let default = Ports::default();
        Ports {
            http_base: self.http_base.unwrap_or(default.http_base),
            resp_base: self.resp_base.unwrap_or(default.resp_base),
            peer_base: self.peer_base.unwrap_or(default.peer_base),
        }
    }
}
