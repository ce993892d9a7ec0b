use std::io;
use std::path::PathBuf;

use cartwheel_storage::StoreError;

use crate::data_dir::DataDirError;
use crate::founding::FoundError;
use crate::joining::NewNodeError;
use crate::random::NoRandomness;
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
        "{name} in {dir} is no member of its cluster in this life: make the node a new directory with cartwheel renew"
    )]
    NoMember {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
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
    Seats(#[from] SeatsError),
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
