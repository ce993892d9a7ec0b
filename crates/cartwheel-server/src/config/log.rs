use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

/// A log level, or levels per module, for example `info,cartwheel_server::peers=debug`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLevel(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl LogLevel {
    /// The directives for `tracing_subscriber::EnvFilter`. They leave out the storage engine's routine messages, unless the level names the
    /// engine.
    pub fn directives(&self) -> String {
        format!("fjall=warn,lsm_tree=warn,{}", self.0)
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_directive = |part: &str| {
            let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
            let is_path = |target: &str| {
                !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
            };
            LEVELS.contains(&level) && target.is_none_or(is_path)
        };
        if text.split(',').all(is_directive) {
            return Ok(Self(text.to_owned()));
        }
        let levels = LEVELS.join(", ");
        Err(format!("give one of {levels}, or levels per module, for example info,cartwheel_server::peers=debug"))
    }
}

/// The format of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Lines of text for people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}
