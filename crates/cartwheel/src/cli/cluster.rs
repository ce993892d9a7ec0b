use clap::{Args, Subcommand};

/// What to ask a node about its cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the members, and what the asked node thinks of each. The exit status is 1 if one has a problem.
    Status(AskArgs),
    /// Show how the ring's partitions are shared out.
    Ring(AskArgs),
    /// Show where a key lies, whether or not it has a value.
    Locate(LocateArgs),
}

/// Whom to ask, and how to answer.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// A node's HTTP address; give it again for more nodes to try.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub node: Vec<String>,
    /// Answer in JSON, as the node gave it.
    #[arg(long)]
    pub json: bool,
}

/// Which key.
#[derive(Debug, Args)]
pub struct LocateArgs {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}
