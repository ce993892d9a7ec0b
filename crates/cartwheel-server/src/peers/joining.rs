//! How a joining node learns about its cluster: it sends a request to its seeds, and then to the members that they name.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cartwheel_core::cluster::membership::{History, Member};
use futures_util::future::join_all;
use tokio::net::{TcpStream, lookup_host};

use super::hello::{self, HelloError};
use crate::data_dir::ClusterSecret;
use crate::tls::PeerSide;

/// How long one node may take to respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node needs to become a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// The secret that the nodes of the cluster share.
    pub secret: ClusterSecret,
    /// All changes that the answering node knows.
    pub history: History,
}

/// Why no node answered a request to join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A host name cannot be resolved.
    #[error("cannot resolve {seed}: {source}")]
    Resolve {
        /// The seed.
        seed: String,
        /// The cause.
        source: io::Error,
    },
    /// The answering nodes belong to different clusters.
    #[error(
        "{first} and {other} belong to different clusters, {first_cluster:032x} and {other_cluster:032x}; give seeds of one cluster"
    )]
    TwoClusters {
        /// The first node to answer.
        first: String,
        /// Its cluster.
        first_cluster: u128,
        /// A node that answered later.
        other: String,
        /// Its cluster.
        other_cluster: u128,
    },
    /// A node gave no invitation.
    #[error("{addr}: {source}")]
    NoInvitation {
        /// The node's address.
        addr: String,
        /// The cause.
        source: HelloError,
    },
}

impl JoinError {
    /// Whether further attempts are useless.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::TwoClusters { .. } | Self::NoInvitation { source: HelloError::ClusterName { .. }, .. })
    }
}

/// Asks all of `seeds` to let `joiner` join, at once or with an administrator's consent, at every address that a seed's name resolves to.
/// Returns the first invitation. If `cluster_name` is not empty, only nodes of the cluster of that name are accepted.
///
/// # Errors
/// If no node answers: the cause at each. If two that answer belong to different clusters: that alone.
pub async fn request_to_join(
    seeds: &BTreeSet<String>,
    joiner: &Member,
    at_once: bool,
    cluster_name: &str,
    tls: &PeerSide,
) -> Result<Invitation, Vec<JoinError>> {
    let (mut invited, mut errors): (Option<(SocketAddr, Invitation)>, _) = (None, Vec::new());
    let resolved = seeds.iter().map(|seed| async move { (seed, lookup_host(seed).await) });
    let mut addrs = BTreeSet::new();
    for (seed, resolved) in join_all(resolved).await {
        match resolved {
            Ok(found) => addrs.extend(found),
            Err(source) => errors.push(JoinError::Resolve { seed: seed.clone(), source }),
        }
    }
    // All at once: a silent node must not keep the others from learning that this one still waits.
    let attempts = addrs.into_iter().map(|addr| async move {
        let attempt = async {
            let tcp = TcpStream::connect(addr).await.map_err(HelloError::Unreachable)?;
            let mut stream = tls.dial(tcp).await?;
            hello::request_to_join(&mut stream, joiner, at_once, cluster_name).await
        };
        (addr, tokio::time::timeout(RESPONSE_TIMEOUT, attempt).await.unwrap_or(Err(HelloError::Silent)))
    });
    for (addr, outcome) in join_all(attempts).await {
        match outcome {
            Ok(invitation) => match &invited {
                None => invited = Some((addr, invitation)),
                Some((first, known)) if known.history.cluster() != invitation.history.cluster() => {
                    let cluster = |of: &Invitation| of.history.cluster().map_or(0, |cluster| cluster.0);
                    return Err(vec![JoinError::TwoClusters {
                        first: first.to_string(),
                        first_cluster: cluster(known),
                        other: addr.to_string(),
                        other_cluster: cluster(&invitation),
                    }]);
                }
                Some(_) => {}
            },
            Err(source) => errors.push(JoinError::NoInvitation { addr: addr.to_string(), source }),
        }
    }
    invited.map(|(_, invitation)| invitation).ok_or(errors)
}
