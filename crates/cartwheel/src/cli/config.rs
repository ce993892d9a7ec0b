use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::FormatArgs;
use cartwheel_server::config::Settings;

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// List all settings and their sources.
    ///
    /// The settings are those that `cartwheel serve` would use. The source is a flag, the environment, the file or the default.
    Show {
        #[command(flatten)]
        format: FormatArgs,
        #[command(flatten)]
        given: Box<SettingsArgs>,
    },
    /// Check the settings of a node without starting it.
    ///
    /// The check changes nothing and opens no port. The exit status is 2 if a setting is invalid.
    Check {
        #[command(flatten)]
        given: Box<SettingsArgs>,
    },
}

/// The settings of `cartwheel serve`, and the file that holds them.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Read settings from this TOML file (or CARTWHEEL_CONFIG).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}
