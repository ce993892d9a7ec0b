use std::io;
use std::path::PathBuf;

use cartwheel_storage::StoreError;

use crate::data_dir::DataDirError;
use crate::lifecycle::bootstrap::BootstrapError;
use crate::lifecycle::join::NewNodeError;
use crate::os::random::NoRandomness;
use crate::shard::PartitionStatesError;
use crate::tls::TlsError;

/// Why a node could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its history has no bootstrap.
    #[error(transparent)]
    Cluster(#[from] BootstrapError),
    /// It has no data directory and got none.
    #[error(transparent)]
    NewNode(#[from] NewNodeError),
    /// The node is not a member of its cluster.
    #[error(
        "{name} in {dir} is not a member of its cluster in this incarnation; give the node a new directory with cartwheel renew"
    )]
    NoMember {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// Its zone differs from the cluster's record.
    #[error(
        "the cluster has {name} in zone {zone:?}, not {given:?}; change that with `cartwheel cluster zone`, or leave --zone out"
    )]
    OtherZone {
        /// Its name.
        name: String,
        /// Its zone.
        zone: String,
        /// The zone that was given.
        given: String,
    },
    /// Another node of its name is the member.
    #[error(
        "{dir} belongs to a node called {name} that is not a member: another node of this name joined at the same time; keep the directory until \
        the data is checked, and start the node with an empty one and another name"
    )]
    NameTaken {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// Another process serves a copy of its data directory.
    #[error(
        "{name} runs already, as {reported_by} reports, so {dir} is a copy of the directory in use, and both cannot be served \
         as one node; to keep the running one, delete this copy; for one more node, start it with an empty directory and another name; \
         to keep this one, stop the other for good and renew {dir} with cartwheel renew: it lacks what the other has stored since the \
         copy was made, and gets it from the other nodes"
    )]
    CopyRuns {
        /// The node's name.
        name: String,
        /// Its directory.
        dir: PathBuf,
        /// The node that reports this.
        reported_by: String,
    },
    /// An address is in use, or not this machine's.
    #[error(
        "cannot listen on {addr} for {what}: {source}; stop the process that uses the port, or give an address of this machine with \
        --{flag}; for `cartwheel dev`, bootstrap a cluster on other ports"
    )]
    Listen {
        /// The service.
        what: &'static str,
        /// The address.
        addr: String,
        /// The flag that sets the address.
        flag: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Other machines could connect, without authentication.
    #[error(
        "refused to listen on {addr} for {what}: other machines could read and change everything; require TLS of clients and nodes and have \
        users (see TLS and Users in the documentation), or listen on loopback (--{flag} 127.0.0.1:PORT), or pass --insecure if every program \
        that can reach the address may do so"
    )]
    Exposed {
        /// The service.
        what: &'static str,
        /// The address.
        addr: String,
        /// The flag that sets the address.
        flag: &'static str,
    },
    /// The file with the first administrator's password cannot be read.
    #[error("cannot read the password of the first administrator from {}: {source}", path.display())]
    AdminPasswordFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The first administrator cannot have this password.
    #[error("{from} cannot be the password of the first administrator: {why}")]
    AdminPassword {
        /// Where it is from.
        from: String,
        /// The reason.
        why: String,
    },
    /// The stored partition states cannot be read.
    #[error(transparent)]
    PartitionStates(#[from] PartitionStatesError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is missing.
    #[error(
        "the records of this node are missing from {0}, though it has run before; restore them, or replace the node"
    )]
    StoreLost(PathBuf),
    /// The store is another node's.
    #[error("the records in {0} are another node's; restore this node's own, or replace the node")]
    StoreOfAnother(PathBuf),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// The operation.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A part of the node ended unexpectedly.
    #[error("a part of the node has failed; see the log above, then restart the node")]
    PartFailed,
}
