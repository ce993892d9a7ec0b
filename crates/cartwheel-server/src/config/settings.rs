use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::access::AccessSettings;
use super::given::Given;
use super::{Interval, Latency, ListenAddr, LogFormat, LogLevel, NewNode, OtlpEndpoint, Share, Size, new_node};
use crate::tls::{ClientTls, PeerTls};

/// The settings that one source gives; those that it does not give are none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct Settings {
    /// The node's data directory, for example DIR/node-1 made by `cartwheel dev --dir DIR`. It has no default.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Listen on this address for HTTP [default: the node's address in the cluster]
    ///
    /// The address in the cluster is where others find the node. Listening elsewhere makes sense behind an address translation, or to
    /// listen on all interfaces: `0.0.0.0:8080`.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Listening")]
    pub http_listen: Option<ListenAddr>,
    /// Listen on this address for Redis clients [default: the node's address for them in the cluster]
    ///
    /// If the default address is in use, the node serves no Redis clients and says so in its log.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Listening")]
    pub resp_listen: Option<ListenAddr>,
    /// Listen on this address for other nodes [default: the node's address in the cluster]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Listening")]
    pub peer_listen: Option<ListenAddr>,
    /// Listen on this address for administrators and monitoring [default: none]
    ///
    /// It serves health, metrics and the cluster's calls, and no keys. It has threads of its own, so it answers however busy the node is with
    /// its clients.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Listening")]
    pub admin_listen: Option<ListenAddr>,
    /// Allow listening where other machines can connect [default: false]
    ///
    /// Without this flag the node listens on other addresses than loopback only with TLS, required of all, and with users: otherwise any program
    /// that is served could read and change everything.
    #[arg(
        long, value_name = "BOOL", help_heading = "Listening",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub insecure: Option<bool>,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// Users.
    #[command(flatten)]
    pub access: AccessSettings,
    /// How a node without a data directory gets one.
    #[command(flatten)]
    pub new: NewNode,
    /// Settings that do not change the node's identity.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Where the node's certificate is, and what it is for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct TlsSettings {
    /// The node's certificate in PEM, followed by those between it and the authority [default: none]
    ///
    /// It names the node, and the hosts at which clients find it. Changed files are used for new connections within seconds.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate in PEM [default: none]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,
    /// The certificates of the authority of the cluster's nodes, in PEM [default: none: no TLS between nodes]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_ca: Option<PathBuf>,
    /// Whether clients use TLS, over HTTP and the Redis protocol [default: require, with a certificate]
    #[arg(long, value_enum, help_heading = "TLS")]
    pub tls_clients: Option<ClientTls>,
    /// Whether nodes use TLS with each other [default: require, with a certificate and an authority]
    ///
    /// To change a running cluster over, restart its nodes one after the other: all with `accept`, then all with `prefer`, then all with
    /// `require`.
    #[arg(long, value_enum, help_heading = "TLS")]
    pub tls_peers: Option<PeerTls>,
}

impl TlsSettings {
    fn or(self, others: Self) -> Self {
        Self {
            tls_cert: self.tls_cert.or(others.tls_cert),
            tls_key: self.tls_key.or(others.tls_key),
            tls_ca: self.tls_ca.or(others.tls_ca),
            tls_clients: self.tls_clients.or(others.tls_clients),
            tls_peers: self.tls_peers.or(others.tls_peers),
        }
    }
}

/// Settings that the nodes of a cluster on one machine can share.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct Tuning {
    /// When a write is acknowledged, for buckets that leave this to the node [default: fsync]
    #[arg(long, value_enum, hide_possible_values = false, help_heading = "Storage")]
    pub durability: Option<Durability>,
    /// Memory for caching records and blocks of the disk, in bytes or with a unit [default: 128MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Storage")]
    pub cache_size: Option<Size>,
    /// Disk space to keep free: with less than this, the node refuses writes with 507 [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Storage")]
    pub disk_reserve: Option<Size>,
    /// The share of the disk that hints may take; above it other nodes keep them [default: 0.1]
    ///
    /// Hints are the writes that the node keeps for members that are down. The share is of the file system that holds the data directory.
    #[arg(long, value_name = "SHARE", help_heading = "Storage")]
    pub hints_share: Option<Share>,
    /// How often each partition is compared with each other replica of it, for example `60s` or `5min` [default: 20s]
    ///
    /// The space of deleted values is freed after about five times as long.
    #[arg(long, value_name = "TIME", help_heading = "Repair")]
    pub exchange_every: Option<Interval>,
    /// Slow down background work while the 99th percentile of requests exceeds this, or is much higher than without it [default: 50ms]
    #[arg(long, value_name = "TIME", help_heading = "Repair")]
    pub background_p99_target: Option<Latency>,
    /// Log level: off, error, warn, info, debug or trace [default: info]
    ///
    /// Modules may have levels of their own: `info,cartwheel_server::peers=debug`.
    #[arg(long, value_name = "LEVEL", help_heading = "Log")]
    pub log_level: Option<LogLevel>,
    /// Format of the log on standard error [default: human]
    #[arg(long, value_enum, help_heading = "Log")]
    pub log_format: Option<LogFormat>,
    /// Log requests on keys that take this long, with the replicas that were late [default: 500ms]
    ///
    /// At most one line a second is written. With 60s, the longest that a request may take, none is.
    #[arg(long, value_name = "TIME", help_heading = "Log")]
    pub slow_request: Option<Latency>,
    /// Send traces of requests to the collector at this URL, by OTLP over HTTP [default: none]
    #[arg(long, value_name = "URL", help_heading = "Traces")]
    pub otlp_endpoint: Option<OtlpEndpoint>,
    /// The share of the requests on keys that begin a trace [default: 0]
    ///
    /// Requests that their clients trace (`traceparent`) are traced besides, up to 100 a second.
    #[arg(long, value_name = "SHARE", help_heading = "Traces")]
    pub trace_sample: Option<Share>,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Durability {
    /// Once it is synced and survives a power failure. Many writes share one sync.
    #[default]
    Fsync,
    /// Once the operating system has it. It is synced within 100 ms.
    Os,
}

impl From<Durability> for cartwheel_core::cluster::membership::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Fsync => Self::Fsync,
            Durability::Os => Self::Os,
        }
    }
}

/// The settings' names, as in the configuration file.
pub(super) const NAMES: [&str; 35] = [
    "dir",
    "http_listen",
    "resp_listen",
    "peer_listen",
    "admin_listen",
    "insecure",
    "tls_cert",
    "tls_key",
    "tls_ca",
    "tls_clients",
    "tls_peers",
    "users",
    "admin_password_file",
    "core_dumps",
    "name",
    "seed",
    "join",
    "bootstrap",
    "cluster_name",
    "zone",
    "host",
    "peer_address",
    "http_address",
    "shards",
    "durability",
    "cache_size",
    "disk_reserve",
    "hints_share",
    "exchange_every",
    "background_p99_target",
    "log_level",
    "log_format",
    "slow_request",
    "otlp_endpoint",
    "trace_sample",
];

impl Settings {
    /// Sets the one of [`NAMES`] that is called `name`; the error says which values are valid.
    pub(super) fn set(&mut self, name: &str, given: &Given<'_>) -> Result<(), String> {
        let tuning = &mut self.tuning;
        match name {
            "dir" => self.dir = Some(given.path()?),
            "http_listen" => self.http_listen = Some(given.parsed()?),
            "resp_listen" => self.resp_listen = Some(given.parsed()?),
            "peer_listen" => self.peer_listen = Some(given.parsed()?),
            "admin_listen" => self.admin_listen = Some(given.parsed()?),
            "insecure" => self.insecure = Some(given.switch()?),
            "tls_cert" => self.tls.tls_cert = Some(given.path()?),
            "tls_key" => self.tls.tls_key = Some(given.path()?),
            "tls_ca" => self.tls.tls_ca = Some(given.path()?),
            "tls_clients" => self.tls.tls_clients = Some(given.choice()?),
            "tls_peers" => self.tls.tls_peers = Some(given.choice()?),
            "users" => self.access.users = Some(given.choice()?),
            "admin_password_file" => self.access.admin_password_file = Some(given.path()?),
            "core_dumps" => self.access.core_dumps = Some(given.switch()?),
            "durability" => tuning.durability = Some(given.choice()?),
            "cache_size" => tuning.cache_size = Some(given.size()?),
            "disk_reserve" => tuning.disk_reserve = Some(given.size()?),
            "hints_share" => tuning.hints_share = Some(given.share()?),
            "exchange_every" => tuning.exchange_every = Some(given.parsed()?),
            "background_p99_target" => tuning.background_p99_target = Some(given.parsed()?),
            "log_level" => tuning.log_level = Some(given.parsed()?),
            "log_format" => tuning.log_format = Some(given.choice()?),
            "slow_request" => tuning.slow_request = Some(given.parsed()?),
            "otlp_endpoint" => tuning.otlp_endpoint = Some(given.parsed()?),
            "trace_sample" => tuning.trace_sample = Some(given.share()?),
            name if new_node::NAMES.contains(&name) => self.new.set(name, given)?,
            _ => return Err(format!("unknown setting; use one of {}", NAMES.join(", "))),
        }
        Ok(())
    }

    /// The value of one of [`NAMES`], written as in a variable, if it is set.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let tuning = &self.tuning;
        match name {
            "dir" => self.dir.as_ref().map(|dir| dir.display().to_string()),
            "http_listen" => self.http_listen.as_ref().map(ToString::to_string),
            "resp_listen" => self.resp_listen.as_ref().map(ToString::to_string),
            "peer_listen" => self.peer_listen.as_ref().map(ToString::to_string),
            "admin_listen" => self.admin_listen.as_ref().map(ToString::to_string),
            "insecure" => self.insecure.map(|is| is.to_string()),
            "tls_cert" => self.tls.tls_cert.as_ref().map(|path| path.display().to_string()),
            "tls_key" => self.tls.tls_key.as_ref().map(|path| path.display().to_string()),
            "tls_ca" => self.tls.tls_ca.as_ref().map(|path| path.display().to_string()),
            "tls_clients" => self.tls.tls_clients.and_then(value_name),
            "tls_peers" => self.tls.tls_peers.and_then(value_name),
            "users" => self.access.users.and_then(value_name),
            "admin_password_file" => self.access.admin_password_file.as_ref().map(|path| path.display().to_string()),
            "core_dumps" => self.access.core_dumps.map(|is| is.to_string()),
            "durability" => tuning.durability.and_then(value_name),
            "cache_size" => tuning.cache_size.map(|size| size.to_string()),
            "disk_reserve" => tuning.disk_reserve.map(|size| size.to_string()),
            "hints_share" => tuning.hints_share.map(|share| share.to_string()),
            "exchange_every" => tuning.exchange_every.map(|every| every.to_string()),
            "background_p99_target" => tuning.background_p99_target.map(|target| target.to_string()),
            "log_level" => tuning.log_level.as_ref().map(ToString::to_string),
            "log_format" => tuning.log_format.and_then(value_name),
            "slow_request" => tuning.slow_request.map(|time| time.to_string()),
            "otlp_endpoint" => tuning.otlp_endpoint.as_ref().map(ToString::to_string),
            "trace_sample" => tuning.trace_sample.map(|share| share.to_string()),
            name => self.new.text(name),
        }
    }

    /// These settings, completed with `others` where they are not set.
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            dir: self.dir.or(others.dir),
            http_listen: self.http_listen.or(others.http_listen),
            resp_listen: self.resp_listen.or(others.resp_listen),
            peer_listen: self.peer_listen.or(others.peer_listen),
            admin_listen: self.admin_listen.or(others.admin_listen),
            insecure: self.insecure.or(others.insecure),
            tls: self.tls.or(others.tls),
            access: self.access.or(others.access),
            new: self.new.or(others.new),
            tuning: self.tuning.or(others.tuning),
        }
    }
}

impl Tuning {
    fn or(self, others: Self) -> Self {
        Self {
            durability: self.durability.or(others.durability),
            cache_size: self.cache_size.or(others.cache_size),
            disk_reserve: self.disk_reserve.or(others.disk_reserve),
            hints_share: self.hints_share.or(others.hints_share),
            exchange_every: self.exchange_every.or(others.exchange_every),
            background_p99_target: self.background_p99_target.or(others.background_p99_target),
            log_level: self.log_level.or(others.log_level),
            log_format: self.log_format.or(others.log_format),
            slow_request: self.slow_request.or(others.slow_request),
            otlp_endpoint: self.otlp_endpoint.or(others.otlp_endpoint),
            trace_sample: self.trace_sample.or(others.trace_sample),
        }
    }

    /// These settings as command-line flags.
    pub fn flags(&self) -> Vec<String> {
        let settings = Settings { tuning: self.clone(), ..Settings::default() };
        let flag = |name: &&str| Some(format!("--{}={}", name.replace('_', "-"), settings.text(name)?));
        NAMES.iter().filter_map(flag).collect()
    }
}

fn value_name<V: ValueEnum>(value: V) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

/// The one of `names` most similar to `name`, if any is similar at all.
pub(super) fn nearest(name: &str, names: &[&'static str]) -> Option<&'static str> {
    let likeness = |known: &&'static str| strsim::jaro_winkler(name, known);
    let nearest = names.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) > 0.8).then_some(nearest)
}
