use std::num::NonZeroU32;

use clap::Args;

use super::ListenAddr;
use super::given::Given;

/// How a node without a data directory bootstraps or joins a cluster. Once it has one, name, shards and zone must match it; addresses that
/// are given move the node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
#[command(next_help_heading = "A node without a data directory")]
pub struct NewNode {
    /// The node's name, unique in the cluster.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Addresses where nodes of the cluster listen for peers
    ///
    /// A name is resolved at each attempt, to all its addresses, so one name may stand for the whole cluster. The node then waits until an
    /// administrator adds it with `cartwheel cluster add NAME`.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub seed: Option<Vec<ListenAddr>>,
    /// Join at once through the seeds, without an administrator [default: false]
    #[arg(
        long, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub join: Option<bool>,
    /// Bootstrap a cluster of this node alone; with --seed, wait for the seeds and bootstrap with them. Needs --cluster-name [default: false]
    #[arg(
        long, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub bootstrap: Option<bool>,
    /// The cluster's name
    ///
    /// The node that bootstraps a cluster names it for good. A node that is given another name than its cluster's does not start, and cannot
    /// join.
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// The node's zone: the replicas of a key are in as many zones as possible.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// The node's machine: within a zone, the replicas of a key are on as many machines as possible. By default the node is its own machine.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Where other nodes reach the node, if not at --peer-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_address: Option<ListenAddr>,
    /// Where clients reach the node, if not at --http-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub http_address: Option<ListenAddr>,
    /// Number of shards to divide the data among [default: one per core]
    #[arg(long, value_name = "COUNT")]
    pub shards: Option<NonZeroU32>,
}

/// The settings' names, as in the configuration file.
pub(super) const NAMES: [&str; 10] =
    ["name", "seed", "join", "bootstrap", "cluster_name", "zone", "host", "peer_address", "http_address", "shards"];

impl NewNode {
    /// Sets the one of [`NAMES`] that is called `name`; the error says which values are valid.
    pub(super) fn set(&mut self, name: &str, given: &Given<'_>) -> Result<(), String> {
        match name {
            "name" => self.name = Some(given.name()?),
            "seed" => self.seed = Some(given.addresses()?),
            "join" => self.join = Some(given.switch()?),
            "bootstrap" => self.bootstrap = Some(given.switch()?),
            "cluster_name" => self.cluster_name = Some(given.name()?),
            "zone" => self.zone = Some(given.name()?),
            "host" => self.host = Some(given.name()?),
            "peer_address" => self.peer_address = Some(given.parsed()?),
            "http_address" => self.http_address = Some(given.parsed()?),
            "shards" => self.shards = Some(given.count()?),
            _ => return Err(format!("unknown setting; use one of {}", NAMES.join(", "))),
        }
        Ok(())
    }

    /// The value of one of [`NAMES`], written as in a variable, if it is set.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let seeds = |seeds: &Vec<ListenAddr>| seeds.iter().map(ListenAddr::as_str).collect::<Vec<_>>().join(",");
        match name {
            "name" => self.name.clone(),
            "seed" => self.seed.as_ref().map(seeds),
            "join" => self.join.map(|is| is.to_string()),
            "bootstrap" => self.bootstrap.map(|is| is.to_string()),
            "cluster_name" => self.cluster_name.clone(),
            "zone" => self.zone.clone(),
            "host" => self.host.clone(),
            "peer_address" => self.peer_address.as_ref().map(ToString::to_string),
            "http_address" => self.http_address.as_ref().map(ToString::to_string),
            "shards" => self.shards.map(|shards| shards.to_string()),
            _ => None,
        }
    }

    /// These settings, completed with `others` where they are not set.
    pub(super) fn or(self, others: Self) -> Self {
        Self {
            name: self.name.or(others.name),
            seed: self.seed.or(others.seed),
            join: self.join.or(others.join),
            bootstrap: self.bootstrap.or(others.bootstrap),
            cluster_name: self.cluster_name.or(others.cluster_name),
            zone: self.zone.or(others.zone),
            host: self.host.or(others.host),
            peer_address: self.peer_address.or(others.peer_address),
            http_address: self.http_address.or(others.http_address),
            shards: self.shards.or(others.shards),
        }
    }
}
