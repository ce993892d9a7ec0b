use std::num::NonZeroU32;

use clap::Args;

use super::ListenAddr;
use super::given::Given;

/// How a node that has no data directory yet founds a cluster, or is let into one. Once it has one, name, shards and zone
/// must be those that it has, and addresses are where it is found from then on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
#[command(next_help_heading = "A node without a data directory")]
pub struct NewNode {
    /// What it is called: no other node of the cluster may be.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where nodes of the cluster listen for peers
    ///
    /// Names are resolved anew each time, to all their addresses, so one name may stand for the whole cluster. The node then waits
    /// until an administrator lets it in with `cartwheel cluster add NAME`.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub seed: Option<Vec<ListenAddr>>,
    /// Be let in at once by the seeds, without an administrator [default: false]
    #[arg(
        long, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub join: Option<bool>,
    /// Found a cluster of which it is the only node, unless seeds are given: then it waits for them. It needs --cluster-name [default: false]
    #[arg(
        long, value_name = "BOOL",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub bootstrap: Option<bool>,
    /// What the cluster is called
    ///
    /// Whoever founds a cluster gives it its name, for good. A node that is told another name than its cluster's does not start, and is not
    /// let in.
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Its zone: homes of a key are in as many zones as there are.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// Its machine: within a zone, homes of a key are on as many machines as there are. Nameless, it is one of its own.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Where other nodes reach it, if not at --peer-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_address: Option<ListenAddr>,
    /// Where clients reach it, if not at --http-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub http_address: Option<ListenAddr>,
    /// How many shards its data is divided among [default: one a core]
    #[arg(long, value_name = "COUNT")]
    pub shards: Option<NonZeroU32>,
}

/// Their names, as they are in a file.
pub(super) const NAMES: [&str; 10] =
    ["name", "seed", "join", "bootstrap", "cluster_name", "zone", "host", "peer_address", "http_address", "shards"];

impl NewNode {
    /// Takes in the value given for one of [`NAMES`], or says what would make sense.
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
            _ => return Err(format!("there is no setting of this name: use one of {}", NAMES.join(", "))),
        }
        Ok(())
    }

    /// The value of one of [`NAMES`], as a variable gives it, if these settings say it.
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

    /// These settings, and `others` where these say nothing.
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
