//! `cartwheel cert`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// For how many days certificates are valid, of authorities and of others.
pub const AUTHORITY_DAYS: u32 = 3_650;
pub const DAYS: u32 = 365;
/// The hosts at which clients on the same machine find a node.
pub const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Make certificates for TLS: of an authority, of nodes, of clients.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make a certificate authority for one cluster.
    ///
    /// Whoever has its key can make certificates for any node and client. Keep it away from the nodes.
    Ca(CaArgs),
    /// Make a certificate for a node.
    ///
    /// The certificate names the node to its peers, and the hosts at which clients find it. An earlier one of the same name is replaced; a
    /// running node takes the new one within seconds.
    #[command(after_help = EXAMPLES)]
    Node(NodeCertArgs),
    /// Make a certificate for a client.
    Client(ClientCertArgs),
}

#[derive(Debug, Args)]
pub struct CaArgs {
    #[command(flatten)]
    pub at: CertDir,
    /// For how many days it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = AUTHORITY_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

#[derive(Debug, Args)]
pub struct NodeCertArgs {
    /// The node's name in the cluster.
    pub name: String,
    /// Hosts at which clients find the node: names or IP addresses.
    ///
    /// Repeat the flag, or separate hosts with commas.
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',', default_values = LOCAL_HOSTS)]
    pub hosts: Vec<String>,
    #[command(flatten)]
    pub at: CertDir,
    /// For how many days it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

#[derive(Debug, Args)]
pub struct ClientCertArgs {
    /// The client's name.
    pub name: String,
    #[command(flatten)]
    pub at: CertDir,
    /// For how many days it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

/// Where certificates and keys are.
#[derive(Debug, Args)]
pub struct CertDir {
    /// The directory with ca.crt and ca.key, and for what is made of them.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub dir: PathBuf,
}

const EXAMPLES: &str = "Examples:
  cartwheel cert ca
  cartwheel cert node node-1 --host db1.example.org,10.0.0.7
  cartwheel serve --dir data --tls-cert certs/node-1.crt --tls-key certs/node-1.key --tls-ca certs/ca.crt";
