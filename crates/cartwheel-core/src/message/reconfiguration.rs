//! Messages by which nodes agree on the configurations of a partition.

use crate::cluster::configuration::{ConfigPhase, ConfigVersion, Configuration};
use crate::cluster::paxos::{Accepted, Ballot};

/// A message about the configurations of one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ReconfigurationMessage {
    /// The sender knows no configuration later than this, and asks for one.
    Query(ConfigVersion),
    /// The current configuration.
    Holds(ConfigPhase),
    /// A proposer of the next configuration with this number asks for a promise (Paxos phase 1).
    Prepare(u64, Ballot),
    /// The acceptor's promise, with what it has accepted.
    Promise(u64, Ballot, Option<Accepted>),
    /// A proposer asks the acceptor to accept this next configuration (Paxos phase 2).
    Accept(Ballot, Configuration),
    /// The acceptor has accepted the next configuration with this number.
    Accepted(u64, Ballot),
    /// The acceptor has promised the second ballot, and so refuses the first.
    Outbid(u64, Ballot, Ballot),
    /// The sender, a home of the next configuration after this number, has copied what the current homes hold.
    Copied(u64),
    /// The sender is synced: it holds all that the configuration before this number held when it ended.
    Synced(u64),
}
