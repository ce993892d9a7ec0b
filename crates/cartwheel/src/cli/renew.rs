use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RenewArgs {
    /// The new directory, which must be empty or not exist.
    #[arg(long)]
    pub dir: PathBuf,
    /// The data directory of another node, or a copy of it.
    ///
    /// Repeat the flag for more nodes, so that no membership change known to any of them is missed.
    #[arg(long, value_name = "DIR", required = true)]
    pub like: Vec<PathBuf>,
    /// The node's name.
    #[arg(long)]
    pub name: String,
}

const EXAMPLES: &str = "Example: replace the lost disk of node-2.
  cartwheel renew --dir ./data/node-2 --like ./data/node-1 --name node-2
  cartwheel serve --dir ./data/node-2

When `cartwheel dev` starts, it does this for each node whose directory is missing or empty.";
