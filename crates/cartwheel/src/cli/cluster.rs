use std::time::Duration;

use cartwheel_client::{Client, Error, MemberChange};
use clap::{Args, Subcommand};

use super::endpoints::{self, Endpoints};
use super::format::FormatArgs;
use super::member_change;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the members and their status.
    ///
    /// The status is the view of the node that answers. The exit status is 1 if a member has a problem. LOAD is the share of all
    /// replicas that a member holds. The command queries several nodes at the same time, so that a hanging node does not delay it.
    Status(StatusArgs),
    /// Check the health of the cluster, for scripts.
    ///
    /// The first line says all; further lines say what to do. The command asks every member. Exit status: 0 healthy; 1 degraded: every key can
    /// be read and written, but something is to be done; 4 critical: keys lack a majority of their homes; 3 no node can be reached.
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(HealthArgs),
    /// Drain a node before it is stopped.
    ///
    /// The node goes on to serve, but `/readyz` says that it drains, so that load balancers leave it, and clients and peers choose others. The
    /// command waits until the node has handed over its hints for members that can be reached. A restart of the node ends it.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Show how partitions are assigned to nodes.
    Ring(RequestArgs),
    /// Show the nodes that hold a key.
    ///
    /// The key need not have a value.
    Locate(LocateArgs),
    /// Add waiting nodes to the cluster.
    ///
    /// `cartwheel serve --seed HOST:PORT --name NODE` starts a node that waits to be added.
    Add {
        /// The names of the nodes.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// The weight of each node (share of data); 100 is normal.
        #[arg(long)]
        weight: Option<u32>,
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Remove members from the cluster.
    ///
    /// A live member hands over its data before it leaves. A dead member is removed without a handover: data that only it holds is
    /// lost.
    Remove {
        /// The names of the nodes.
        #[arg(required = true)]
        nodes: Vec<String>,
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Replace a member with a waiting node.
    ///
    /// The new node takes over the partitions of the member, which may be alive or dead.
    Replace {
        /// The name of the member.
        #[arg(value_name = "NODE")]
        member: String,
        /// The name of the waiting node.
        with: String,
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Set a member's weight.
    Weight {
        /// The name of the member.
        #[arg(value_name = "NODE")]
        member: String,
        /// The weight of the member (share of data); 100 is normal.
        weight: u32,
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Set a member's zone and host.
    Zone {
        /// The name of the member.
        #[arg(value_name = "NODE")]
        member: String,
        /// The zone.
        zone: String,
        /// The machine; unchanged if not given.
        host: Option<String>,
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Set a member's addresses.
    ///
    /// A node that starts at a new address announces it to its peers. Use this command for a node that cannot reach any peer.
    SetAddress {
        /// The name of the member.
        #[arg(value_name = "NODE")]
        member: String,
        /// The address for peers; unchanged if not given.
        #[arg(long, value_name = "HOST:PORT", required_unless_present = "http_address")]
        peer_address: Option<String>,
        /// The address for HTTP clients; unchanged if not given.
        #[arg(long, value_name = "HOST:PORT")]
        http_address: Option<String>,
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Make several membership changes with one plan.
    ///
    /// Data is copied once, to the placement that results from all changes together.
    #[command(after_help = CHANGE_EXAMPLES)]
    Change {
        /// The changes, in order.
        ///
        /// Each one is add=NODE[:WEIGHT], remove=NODE, replace=NODE:WITH, weight=NODE:WEIGHT or zone=NODE:ZONE[/HOST].
        #[arg(required_unless_present = "force", value_name = "CHANGE", value_parser = member_change::parse)]
        changes: Vec<MemberChange>,
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Show partition transfers and what they wait for.
    #[command(alias = "moves")]
    Transfers {
        /// Wait until no transfer is left.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        request: RequestArgs,
    },
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show the status again every so many seconds until Ctrl-C [default: 2]
    ///
    /// If the node that answers is lost, another one of the cluster is asked.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = endpoints::time)]
    pub watch: Option<Duration>,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Ask only one node whether it is ready, as a container's health check does.
    ///
    /// It is the first address of --node, or 127.0.0.1:8080. The exit status is 0 if it is ready, 1 if it is not (it starts, drains, or its disk is
    /// full), 3 if it does not answer.
    #[arg(long)]
    pub node_only: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The name of the member.
    #[arg(value_name = "NODE")]
    pub member: String,
    /// End the drain: the node is chosen again as before.
    #[arg(long)]
    pub undo: bool,
    /// Drain it even if keys would lack a majority of their homes while it is stopped.
    #[arg(long, conflicts_with = "undo")]
    pub force: bool,
    /// Do not wait until the node has handed over its hints.
    #[arg(long, conflicts_with = "undo")]
    pub no_wait: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// How a membership change is confirmed and made. The plan is shown first.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Make the change without confirmation.
    #[arg(long, short)]
    pub yes: bool,
    /// Show the plan and change nothing.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Mark removed or replaced nodes that do not answer as lost.
    ///
    /// This applies to nodes removed or replaced by this change or by an earlier one. Partitions that have lost most of their homes
    /// are force-recovered from the homes that are left. The consistency guarantees for these partitions end.
    #[arg(long)]
    pub force: bool,
    /// Wait until all data is at its target placement.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// Endpoints, output format and timeout of a request.
#[derive(Debug, Args)]
pub struct RequestArgs {
    #[command(flatten)]
    pub endpoints: Endpoints,
    #[command(flatten)]
    pub format: FormatArgs,
    /// The time limit over all retries, as 2s or 500ms.
    #[arg(long, value_name = "TIME", value_parser = endpoints::time)]
    pub timeout: Option<Duration>,
}

impl RequestArgs {
    /// Returns a client with these endpoints and this timeout.
    ///
    /// # Errors
    /// If an address is invalid.
    pub fn client(&self) -> Result<Client, Error> {
        let client = self.endpoints.client()?;
        Ok(match self.timeout {
            Some(timeout) => client.with_timeout(timeout),
            None => client,
        })
    }
}

#[derive(Debug, Args)]
pub struct LocateArgs {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    #[command(flatten)]
    pub request: RequestArgs,
}

const CHANGE_EXAMPLES: &str = "Examples:
  Add two nodes, remove one, and set the weight of another to 150:
    cartwheel cluster change add=d add=e remove=b weight=a:150

  Show the plan, and change nothing:
    cartwheel cluster change replace=a:f zone=c:east/rack-7 --dry-run

  Replace two of three nodes whose disks are lost:
    cartwheel cluster change replace=b:d replace=c:e --force";

const HEALTH_EXAMPLES: &str = "Examples:
  Wait until the cluster is healthy:
    until cartwheel cluster health; do sleep 5; done

  The health check of a container:
    cartwheel cluster health --node-only --node 127.0.0.1:8080";

const DRAIN_EXAMPLES: &str = "Examples:
  Before node-2 is stopped for maintenance:
    cartwheel cluster drain node-2 && systemctl stop cartwheel

  It is not to be stopped after all:
    cartwheel cluster drain node-2 --undo";
