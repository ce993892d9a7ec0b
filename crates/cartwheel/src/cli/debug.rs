use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Endpoints;

#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Write what support asks for to one archive.
    ///
    /// The archive holds the cluster's status, ring and transfers, and of each node that answers its settings without secrets, its metrics, the last
    /// lines of its log and facts about its machine. It holds no values, but logs may name keys: look through it before you pass it on.
    Bundle(BundleArgs),
}

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The file [default: cartwheel-bundle-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub endpoints: Endpoints,
}
