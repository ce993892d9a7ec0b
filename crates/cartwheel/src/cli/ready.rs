use std::time::Duration;

use clap::Args;

use super::endpoints::{self, Endpoints};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReadyArgs {
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// The time limit of a check, as 2s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = endpoints::time)]
    pub timeout: Duration,
    /// Check again until a node is ready, for at most this time.
    #[arg(long, value_name = "TIME", value_parser = endpoints::time)]
    pub wait: Option<Duration>,
}

const EXAMPLES: &str = "Examples:
  Wait for a node that was restarted:
    cartwheel ready --node 10.0.0.7:8080 --wait 2m";
