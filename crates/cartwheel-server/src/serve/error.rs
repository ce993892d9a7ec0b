use std::io;
use std::path::PathBuf;

use cartwheel_storage::StoreError;

use crate::data_dir::DataDirError;
use crate::lifecycle::bootstrap::FoundError;
use crate::lifecycle::join::NewNodeError;
use crate::os::random::NoRandomness;
use crate::shard::SeatsError;

/// Why a node could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its data directory is wrong.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its cluster cannot be made out.
    #[error(transparent)]
    Cluster(#[from] FoundError),
    /// It has no data directory and came to none.
    #[error(transparent)]
    NewNode(#[from] NewNodeError),
    /// The node is no member of its cluster.
    #[error(
        "{name} in {dir} is no member of its cluster in this incarnation: make the node a new directory with cartwheel renew"
    )]
    NoMember {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// It was told to be in another zone than the cluster has it in.
    #[error(
        "the cluster has {name} in zone {zone:?}, and it was told that it is in {said:?}: change that with `cartwheel cluster zone`, or leave \
         --zone out"
    )]
    OtherZone {
        /// Its name.
        name: String,
        /// Its zone.
        zone: String,
        /// What was said.
        said: String,
    },
    /// Another node of its name is the member.
    #[error(
        "{dir} belongs to a node called {name} that is no member of its cluster: another one of this name was let in at the same time. Keep \
         the directory until the data is checked, and start the node with an empty one and another name"
    )]
    NameTaken {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// Another process serves a copy of its data directory.
    #[error(
        "{name} runs already, as {told_by} says, so {dir} is a copy of the data directory that it serves, and two cannot be served as one \
         node. If that one is to go on, delete this copy; for one more node, start it with an empty directory and another name. If this \
         one is to go on, stop that one and never start it again: whatever it has stored since the copy was made must then come from the \
         other nodes, so make {dir} anew with cartwheel renew"
    )]
    CopyRuns {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
        /// Who says so.
        told_by: String,
    },
    /// An address is taken or not this machine's.
    #[error(
        "cannot listen on {addr} for {what}: {source}. Stop whatever uses the port, or give an address of this machine with \
         --{flag}; for `cartwheel dev`, found a cluster on other ports"
    )]
    Listen {
        /// For whom.
        what: &'static str,
        /// The address.
        addr: String,
        /// The flag that gives another one.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Other machines could connect, and nothing would keep them out.
    #[error(
        "refused to listen on {addr} for {what}: other machines can connect there, and as this version has neither TLS nor users, \
         whoever can connect can read and change everything. Listen on this machine alone (--{flag} 127.0.0.1:PORT), or say \
         --insecure if all who can reach the address may do so"
    )]
    Exposed {
        /// For whom.
        what: &'static str,
        /// The address.
        addr: String,
        /// The flag that gives another one.
        flag: &'static str,
    },
    /// What the node has promised about partitions cannot be read.
    #[error(transparent)]
    PartitionStates(#[from] SeatsError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has gone.
    #[error(
        "the records of this node are gone from {0}, and it has been started before: put them back, or replace the node"
    )]
    StoreLost(PathBuf),
    /// The store is another node's.
    #[error("the records in {0} are not this node's: put its own back, or replace the node")]
    StoreOfAnother(PathBuf),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A part of the node ended without being told to.
    #[error("a part of the node has failed: see the log above, then restart the node")]
    PartFailed,
}
