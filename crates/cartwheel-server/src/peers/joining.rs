//! How a node that is no member yet comes to know its cluster: it asks those that its operator named, and those that it then hears of.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use cartwheel_core::cluster::membership::{History, Member};
use futures_util::future::join_all;
use tokio::net::{TcpStream, lookup_host};

use super::hello::{self, HelloError};
use crate::data_dir::ClusterSecret;

/// How long one node has to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a node needs to be a member once it is let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// What the nodes of the cluster share.
    pub secret: ClusterSecret,
    /// All changes that the node which was asked knows.
    pub history: History,
}

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// A name stands for no address.
    #[error("{seed} cannot be resolved: {source}")]
    Resolve {
        /// What was given.
        seed: String,
        /// What the system said.
        source: io::Error,
    },
    /// Those that were asked are not of one cluster.
    #[error(
        "{first} and {other} belong to different clusters, {first_cluster:032x} and {other_cluster:032x}: give seeds of one cluster"
    )]
    TwoClusters {
        /// The one that answered first.
        first: String,
        /// Its cluster.
        first_cluster: u128,
        /// One that answered later.
        other: String,
        /// Its cluster.
        other_cluster: u128,
    },
    /// None of them answers as it should.
    #[error("{addr}: {source}")]
    Asked {
        /// Who was asked.
        addr: String,
        /// What went wrong.
        source: HelloError,
    },
}

impl JoinError {
    /// Whether it is of no use to ask again.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::TwoClusters { .. } | Self::Asked { source: HelloError::ClusterName { .. }, .. })
    }
}

/// Asks all of `seeds` to let `joiner` in, at once or when an administrator says so, under each address that a name stands for now,
/// and says what the first that answered knows. Only nodes of the cluster of this name are joined, if it is not empty.
///
/// # Errors
/// If none answers: what went wrong at each. If two that answer belong to different clusters: that alone.
pub async fn ask_to_join(
    seeds: &BTreeSet<String>,
    joiner: &Member,
    at_once: bool,
    cluster_name: &str,
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
    // All at once: one that is silent must not keep the others from hearing that the node still waits.
    let asked = addrs.into_iter().map(|addr| async move {
        let ask = async {
            let mut stream = TcpStream::connect(addr).await.map_err(HelloError::Unreachable)?;
            hello::ask_to_join(&mut stream, joiner, at_once, cluster_name).await
        };
        (addr, tokio::time::timeout(ANSWER_WITHIN, ask).await.unwrap_or(Err(HelloError::Silent)))
    });
    for (addr, asked) in join_all(asked).await {
        match asked {
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
            Err(source) => errors.push(JoinError::Asked { addr: addr.to_string(), source }),
        }
    }
    invited.map(|(_, invitation)| invitation).ok_or(errors)
}
