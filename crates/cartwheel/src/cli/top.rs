use std::time::Duration;

use clap::Args;

use super::endpoints::{self, Endpoints};

const EXAMPLES: &str = "Examples:
  cartwheel top
  cartwheel top --every 5s --node 127.0.0.1:8081
  cartwheel top --once";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// How often to ask the nodes.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = endpoints::time)]
    pub every: Duration,
    /// Print one screen as text and exit.
    ///
    /// Rates are those of one interval, so this takes as long.
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub endpoints: Endpoints,
}
