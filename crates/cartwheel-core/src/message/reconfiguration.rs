//! What nodes say to each other about the configurations of a partition.

use crate::cluster::configuration::{ConfigPhase, ConfigVersion, Configuration};
use crate::cluster::paxos::{Accepted, Ballot};

/// What one node says to another about a partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ReconfigurationMessage {
    /// The sender knows of nothing later than this, and would like to.
    Query(ConfigVersion),
    /// What holds.
    Holds(ConfigPhase),
    /// A proposer of the successor of this number asks to be heard.
    Prepare(u64, Ballot),
    /// A chooser hears it, and says what it has accepted.
    Promise(u64, Ballot, Option<Accepted>),
    /// A chooser is to accept this.
    Accept(Ballot, Configuration),
    /// It has accepted the successor of this number.
    Accepted(u64, Ballot),
    /// A chooser has promised to hear nobody below the second ballot, and so not the first.
    Outbid(u64, Ballot, Ballot),
    /// The sender, which is to be a home after this number, holds what the homes do.
    Copied(u64),
    /// The sender holds all that the configuration before this number held when it ended.
    Synced(u64),
}
