use std::time::Duration;

use cartwheel_client::{Client, Error, MemberChange};
use clap::{Args, Subcommand};

use super::endpoints::{self, Endpoints};
use super::format::FormatArgs;
use super::wish;

/// What to ask a node about its cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Show the members, and what the asked node thinks of each. The exit status is 1 if one has a problem.
    ///
    /// LOAD is the share of all replicas that a member holds. Several nodes are asked at once, so that one that hangs holds up nothing.
    Status(AskArgs),
    /// Show how the ring's partitions are shared out.
    Ring(AskArgs),
    /// Show where a key lies, whether or not it has a value.
    Locate(LocateArgs),
    /// Let nodes that wait become members: `cartwheel serve --seed HOST:PORT --name NODE` waits.
    Add {
        /// The nodes.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Their share of the data; 100 is a normal one.
        #[arg(long)]
        weight: Option<u32>,
        /// How.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Have members hand over what they hold, and leave. One that is dead is removed without being heard; what only it holds goes
    /// with it.
    Remove {
        /// The nodes.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// How.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Put a node that waits in the place of a member, alive or dead: it takes over the same partitions.
    Replace {
        /// The member.
        #[arg(value_name = "NODE")]
        member: String,
        /// The node that waits.
        with: String,
        /// How.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Give a member another share of the data.
    Weight {
        /// The node.
        #[arg(value_name = "NODE")]
        member: String,
        /// Its share of the data; 100 is a normal one.
        weight: u32,
        /// How.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Say where a member stands.
    Zone {
        /// The node.
        #[arg(value_name = "NODE")]
        member: String,
        /// Its zone.
        zone: String,
        /// Its machine; as before if not said.
        host: Option<String>,
        /// How.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Say where a member is found now. A node that is started elsewhere says so itself; this is for one that reaches no other.
    SetAddress {
        /// The node.
        #[arg(value_name = "NODE")]
        member: String,
        /// Where peers find it; as before if not said.
        #[arg(long, value_name = "HOST:PORT", required_unless_present = "http_address")]
        peer_address: Option<String>,
        /// Where HTTP clients find it; as before if not said.
        #[arg(long, value_name = "HOST:PORT")]
        http_address: Option<String>,
        /// How.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Make several changes of the members with one plan: data moves once, to where all of them together want it.
    #[command(after_help = CHANGE_EXAMPLES)]
    Change {
        /// The changes, in their order: add=NODE[:WEIGHT], remove=NODE, replace=NODE:WITH, weight=NODE:WEIGHT, zone=NODE:ZONE[/HOST].
        #[arg(required_unless_present = "force", value_name = "CHANGE", value_parser = wish::parse)]
        changes: Vec<MemberChange>,
        /// How.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Show which partitions are on their way to where they are wished, and what they wait for.
    Moves {
        /// Wait until none is.
        #[arg(long)]
        wait: bool,
        /// Whom to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// How a change of the members is made: first it is shown what it leads to.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Make the change without asking.
    #[arg(long, short)]
    pub yes: bool,
    /// Only show what it leads to.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Give up for good what was removed or replaced, by this change or before, and does not answer. Partitions that have lost most of
    /// their homes are made anew of those that are left, and what was promised of them ends.
    #[arg(long)]
    pub force: bool,
    /// Wait until all data is where it is wished then.
    #[arg(long)]
    pub wait: bool,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Whom to ask, and how to answer.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub endpoints: Endpoints,
    /// How to answer.
    #[command(flatten)]
    pub format: FormatArgs,
    /// How long a question may take in all, as 2s or 500ms.
    #[arg(long, value_name = "TIME", value_parser = endpoints::time)]
    pub timeout: Option<Duration>,
}

impl AskArgs {
    /// A client that asks so.
    ///
    /// # Errors
    /// If an address cannot be used.
    pub fn client(&self) -> Result<Client, Error> {
        let client = self.endpoints.client()?;
        Ok(match self.timeout {
            Some(timeout) => client.with_timeout(timeout),
            None => client,
        })
    }
}

/// Which key.
#[derive(Debug, Args)]
pub struct LocateArgs {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

const CHANGE_EXAMPLES: &str = "Examples:
  Two new nodes for an old one, and half as much again for a fourth:
    cartwheel cluster change add=d add=e remove=b weight=a:150

  See what it would lead to:
    cartwheel cluster change replace=a:f zone=c:east/rack-7 --dry-run

  Two of three nodes are lost for good, with their disks:
    cartwheel cluster change replace=b:d replace=c:e --force";
