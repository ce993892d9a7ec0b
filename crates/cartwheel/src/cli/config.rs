use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::FormatArgs;
use cartwheel_server::config::Settings;

/// What to do with the settings of a node.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// List all settings as `cartwheel serve` would go by them, and whether a flag, the environment, the file or nobody said so.
    Show {
        /// How to show them.
        #[command(flatten)]
        format: FormatArgs,
        /// The settings.
        #[command(flatten)]
        given: Box<SettingsArgs>,
    },
    /// Check whether `cartwheel serve` would start with these settings, as far as that can be told without starting it.
    ///
    /// Nothing is changed, and no port is listened on. The exit status is 2 if something makes no sense.
    Check {
        /// The settings.
        #[command(flatten)]
        given: Box<SettingsArgs>,
    },
}

/// Settings as `cartwheel serve` takes them.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Read settings from this TOML file; CARTWHEEL_CONFIG names one too.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}
