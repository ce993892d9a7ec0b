//! What `cartwheel serve` is told: by flags, by the environment and by a file, all with the same names.
//!
//! A flag goes before a variable, a variable before the file, the file before the default. The setting `cache_size` is the flag
//! `--cache-size`, the variable `CARTWHEEL_CACHE_SIZE` and the key `cache_size` in the file.

mod address;
mod environment;
mod file;
mod given;
mod interval;
pub mod listing;
mod log;
mod new_node;
mod settings;
mod share;
mod size;

use std::path::PathBuf;
use std::time::Duration;

pub use address::ListenAddr;
pub use environment::Environment;
pub use file::FileError;
pub use given::BadValue;
pub use interval::{Interval, Latency};
pub use log::{LogFormat, LogLevel};
pub use new_node::NewNode;
pub use settings::{Durability, Settings, Tuning};
pub use share::Share;
pub use size::Size;

/// Memory for blocks that were read from disk, if nothing else is said.
const CACHE_DEFAULT: Size = Size(128 << 20);
/// The disk space that is kept free, if nothing else is said.
const DISK_RESERVE_DEFAULT: Size = Size(256 << 20);

/// The share of the file system that hints may take up, if nothing else is said.
const HINTS_SHARE_DEFAULT: Share = Share::percent(10);

/// How often replicas are compared, if nothing else is said.
const EXCHANGE_EVERY_DEFAULT: Interval = Interval(Duration::from_secs(20));

/// How far background work may push the 99th percentile of clients' requests, if nothing else is said.
const BACKGROUND_P99_TARGET_DEFAULT: Latency = Latency(Duration::from_millis(50));

/// How a node is to be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The node's data directory.
    pub dir: PathBuf,
    /// Where to listen for HTTP; if not said, where the cluster believes it to be.
    pub http_listen: Option<ListenAddr>,
    /// Where to listen for peers; if not said, where the cluster believes it to be.
    pub peer_listen: Option<ListenAddr>,
    /// Where to listen for administrators apart from clients, if anywhere.
    pub admin_listen: Option<ListenAddr>,
    /// Whether to listen where other machines can connect, though there is neither TLS nor a user to ask for a password.
    pub insecure: bool,
    /// When a write is acknowledged, in buckets that do not say.
    pub durability: Durability,
    /// Memory for blocks that were read from disk, in bytes.
    pub cache_bytes: u64,
    /// The free disk space below which no more is written, in bytes.
    pub disk_reserve_bytes: u64,
    /// The share of the data directory's file system that records kept for other nodes may take up.
    pub hints_share: Share,
    /// How often each partition is compared with each other node that holds it.
    pub exchange_every: Duration,
    /// How far background work may push the 99th percentile of clients' requests.
    pub background_p99_target: Duration,
    /// How much is logged.
    pub log_level: LogLevel,
    /// How the log looks.
    pub log_format: LogFormat,
    /// How the node comes to a data directory, if it has none.
    pub new: NewNode,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The data directory is not said.
    #[error("no data directory is given: give it with --dir, as CARTWHEEL_DIR, or as dir in the file of --config")]
    NoDir,
    /// A variable's value makes no sense.
    #[error("the environment variable {0}")]
    Environment(BadValue),
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Config {
    /// The configuration that `flags`, then the environment, then the file at `path` or at `CARTWHEEL_CONFIG` describe.
    ///
    /// # Errors
    /// If there is no data directory in them, or something that makes no sense.
    pub fn resolve(flags: Settings, path: Option<PathBuf>, environment: &Environment) -> Result<Self, ConfigError> {
        let Sources { flags, variables, file } = Sources::read(flags, path, environment)?;
        let settings = flags.or(variables).or(file);
        let tuning = settings.tuning;
        Ok(Self {
            dir: settings.dir.ok_or(ConfigError::NoDir)?,
            http_listen: settings.http_listen,
            peer_listen: settings.peer_listen,
            admin_listen: settings.admin_listen,
            insecure: settings.insecure.unwrap_or(false),
            durability: tuning.durability.unwrap_or_default(),
            cache_bytes: tuning.cache_size.unwrap_or(CACHE_DEFAULT).0,
            disk_reserve_bytes: tuning.disk_reserve.unwrap_or(DISK_RESERVE_DEFAULT).0,
            hints_share: tuning.hints_share.unwrap_or(HINTS_SHARE_DEFAULT),
            exchange_every: tuning.exchange_every.unwrap_or(EXCHANGE_EVERY_DEFAULT).0,
            background_p99_target: tuning.background_p99_target.unwrap_or(BACKGROUND_P99_TARGET_DEFAULT).0,
            log_level: tuning.log_level.unwrap_or_default(),
            log_format: tuning.log_format.unwrap_or_default(),
            new: settings.new,
        })
    }
}

/// What each source says, the one that goes before the others first.
struct Sources {
    flags: Settings,
    variables: Settings,
    file: Settings,
}

impl Sources {
    fn read(flags: Settings, path: Option<PathBuf>, environment: &Environment) -> Result<Self, ConfigError> {
        let variables = environment.settings().map_err(ConfigError::Environment)?;
        let file = match path.or_else(|| environment.config_file()) {
            Some(path) => file::read(&path)?,
            None => Settings::default(),
        };
        Ok(Self { flags, variables, file })
    }
}

#[cfg(test)]
mod tests;
