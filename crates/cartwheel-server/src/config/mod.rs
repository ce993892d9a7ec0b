//! The configuration of a node: flags, environment variables and a file, with the same names for the settings everywhere.
//!
//! A flag takes precedence over a variable, a variable over the file, the file over the default. The setting `cache_size` is the flag
//! `--cache-size`, the variable `CARTWHEEL_CACHE_SIZE` and the key `cache_size` in the file.

mod access;
mod address;
mod environment;
mod file;
mod given;
mod in_force;
mod interval;
pub mod listing;
mod log;
mod new_node;
mod otlp;
mod settings;
mod share;
mod size;

use std::path::PathBuf;
use std::time::Duration;

pub use access::{AccessConfig, AccessSettings, AdminPassword, UsersMode};
pub use address::ListenAddr;
pub use environment::Environment;
pub use file::FileError;
pub use given::BadValue;
pub use interval::{Interval, Latency};
pub use log::{LogFormat, LogLevel};
pub use new_node::NewNode;
pub use otlp::OtlpEndpoint;
pub use settings::{Durability, Settings, TlsSettings, Tuning};
pub use share::Share;
pub use size::Size;

use crate::tls::{ClientTls, PeerTls, TlsFiles};

/// The default memory for blocks that were read from disk.
const CACHE_DEFAULT: Size = Size(128 << 20);
/// The default disk space to keep free.
const DISK_RESERVE_DEFAULT: Size = Size(256 << 20);

/// The default share of the file system that hints may take.
const HINTS_SHARE_DEFAULT: Share = Share::percent(10);

/// The default interval between comparisons of replicas.
const EXCHANGE_EVERY_DEFAULT: Interval = Interval(Duration::from_secs(20));

/// The default limit to which background work may raise the 99th percentile of client requests.
const BACKGROUND_P99_TARGET_DEFAULT: Latency = Latency(Duration::from_millis(50));

/// The default time from which on a request is logged as slow.
const SLOW_REQUEST_DEFAULT: Latency = Latency(Duration::from_millis(500));

/// The configuration of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The node's data directory.
    pub dir: PathBuf,
    /// Where to listen for HTTP; by default the node's address in the cluster.
    pub http_listen: Option<ListenAddr>,
    /// Where to listen for Redis clients; by default the node's address for them in the cluster.
    pub resp_listen: Option<ListenAddr>,
    /// Where to listen for peers; by default the node's address in the cluster.
    pub peer_listen: Option<ListenAddr>,
    /// Where to listen for administrators only, if anywhere.
    pub admin_listen: Option<ListenAddr>,
    /// Whether to listen where other machines can connect without TLS and users.
    pub insecure: bool,
    /// The node's certificate and key, and what they are for; none without TLS.
    pub tls: Option<TlsFiles>,
    /// Whether clients have to be a user.
    pub access: AccessConfig,
    /// When a write is acknowledged, for buckets that leave this to the node.
    pub durability: Durability,
    /// Memory for blocks that were read from disk, in bytes.
    pub cache_bytes: u64,
    /// The free disk space below which the node refuses writes, in bytes.
    pub disk_reserve_bytes: u64,
    /// The share of the data directory's file system that hints may take.
    pub hints_share: Share,
    /// How often each partition is compared with each other replica of it.
    pub exchange_every: Duration,
    /// The 99th percentile of client requests above which background work slows down.
    pub background_p99_target: Duration,
    /// The log level.
    pub log_level: LogLevel,
    /// The format of the log.
    pub log_format: LogFormat,
    /// The time from which on a request on a key is logged as slow.
    pub slow_request: Duration,
    /// The collector that traces are sent to, if any.
    pub otlp_endpoint: Option<OtlpEndpoint>,
    /// The share of the requests without a trace that begin one.
    pub trace_sample: Share,
    /// The settings that make a data directory, for a node that has none.
    pub new: NewNode,
}

/// Why the configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No data directory is given.
    #[error("no data directory is given; give it with --dir, CARTWHEEL_DIR, or dir in the configuration file")]
    NoDir,
    /// There is a certificate without a key, or the other way round.
    #[error("TLS needs both tls_cert and tls_key; give both, or neither")]
    HalfTls,
    /// Who uses TLS is set, and there is no certificate.
    #[error("{0} needs a certificate; give tls_cert and tls_key")]
    NoCertificate(&'static str),
    /// Certificates of others are to be checked, and there is no authority.
    #[error("{0} needs the certificate of the authority that signs the others' certificates; give tls_ca")]
    NoAuthority(&'static str),
    /// A variable has an invalid value.
    #[error("the environment variable {0}")]
    Environment(BadValue),
    /// The configuration file is invalid.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Config {
    /// Merges `flags`, the environment, and the file at `path` or `CARTWHEEL_CONFIG`, in this order of precedence.
    ///
    /// # Errors
    /// If no data directory is given, or a value is invalid.
    pub fn resolve(flags: Settings, path: Option<PathBuf>, environment: &Environment) -> Result<Self, ConfigError> {
        let Sources { flags, variables, file } = Sources::read(flags, path, environment)?;
        let settings = flags.or(variables).or(file);
        let tuning = settings.tuning;
        Ok(Self {
            dir: settings.dir.ok_or(ConfigError::NoDir)?,
            http_listen: settings.http_listen,
            resp_listen: settings.resp_listen,
            peer_listen: settings.peer_listen,
            admin_listen: settings.admin_listen,
            insecure: settings.insecure.unwrap_or(false),
            tls: tls_files(settings.tls)?,
            access: AccessConfig::of(settings.access, environment.admin_password()),
            durability: tuning.durability.unwrap_or_default(),
            cache_bytes: tuning.cache_size.unwrap_or(CACHE_DEFAULT).0,
            disk_reserve_bytes: tuning.disk_reserve.unwrap_or(DISK_RESERVE_DEFAULT).0,
            hints_share: tuning.hints_share.unwrap_or(HINTS_SHARE_DEFAULT),
            exchange_every: tuning.exchange_every.unwrap_or(EXCHANGE_EVERY_DEFAULT).0,
            background_p99_target: tuning.background_p99_target.unwrap_or(BACKGROUND_P99_TARGET_DEFAULT).0,
            log_level: tuning.log_level.unwrap_or_default(),
            log_format: tuning.log_format.unwrap_or_default(),
            slow_request: tuning.slow_request.unwrap_or(SLOW_REQUEST_DEFAULT).0,
            otlp_endpoint: tuning.otlp_endpoint,
            trace_sample: tuning.trace_sample.unwrap_or(Share::percent(0)),
            new: settings.new,
        })
    }
}

/// The files of TLS, if there are any.
fn tls_files(tls: TlsSettings) -> Result<Option<TlsFiles>, ConfigError> {
    let TlsSettings { tls_cert, tls_key, tls_ca, tls_clients, tls_peers } = tls;
    match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => {
            let by_default = if tls_ca.is_some() { PeerTls::Require } else { PeerTls::Off };
            let (clients, peers) = (tls_clients.unwrap_or_default(), tls_peers.unwrap_or(by_default));
            if peers != PeerTls::Off && tls_ca.is_none() {
                return Err(ConfigError::NoAuthority("tls_peers"));
            }
            if clients == ClientTls::Certificate && tls_ca.is_none() {
                return Err(ConfigError::NoAuthority("tls_clients"));
            }
            Ok(Some(TlsFiles { cert, key, ca: tls_ca, clients, peers }))
        }
        (None, None) => {
            let needless = [
                (tls_ca.is_some(), "tls_ca"),
                (tls_clients.is_some_and(|mode| mode != ClientTls::Off), "tls_clients"),
                (tls_peers.is_some_and(|mode| mode != PeerTls::Off), "tls_peers"),
            ];
            match needless.into_iter().find(|(is_set, _)| *is_set) {
                Some((_, name)) => Err(ConfigError::NoCertificate(name)),
                None => Ok(None),
            }
        }
        _ => Err(ConfigError::HalfTls),
    }
}

/// The settings of each source, in order of precedence.
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
