//! Listens on the node's addresses.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tracing::warn;

use super::ServeError;
use crate::config::{Config, ListenAddr};
use crate::tls::{ClientTls, PeerTls};

/// A service, and the flag that sets its address.
pub(super) type For = (&'static str, &'static str);
pub(super) const HTTP: For = ("HTTP", "http-listen");
pub(super) const RESP: For = ("Redis clients", "resp-listen");
pub(super) const ADMINISTRATORS: For = ("administrators", "admin-listen");
pub(super) const PEERS: For = ("peers", "peer-listen");

/// What may be served where other machines can connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Exposable {
    clients: bool,
    peers: bool,
}

impl Exposable {
    /// As a node is configured: what needs TLS and a user, and all of it if the administrator says so. `has_users` says whether the cluster has
    /// users.
    pub(super) fn of(config: &Config, has_users: bool) -> Self {
        let tls = config.tls.as_ref();
        let is_encrypted = tls.is_some_and(|tls| [ClientTls::Require, ClientTls::Certificate].contains(&tls.clients));
        // Between nodes the certificates of both sides are checked.
        let is_among_nodes = tls.is_some_and(|tls| tls.peers == PeerTls::Require);
        let has_users = has_users || config.access.requires_users();
        Self { clients: config.insecure || is_encrypted && has_users, peers: config.insecure || is_among_nodes }
    }

    fn allows(self, flag: &str) -> bool {
        if flag == PEERS.1 { self.peers } else { self.clients }
    }
}

/// Listens on `wanted`, or on the address `known` to the cluster. An address that other machines can reach has to be
/// `exposable`.
pub(super) async fn listen(
    of: For,
    wanted: Option<&ListenAddr>,
    known: &str,
    exposable: Exposable,
) -> Result<TcpListener, ServeError> {
    let addrs = check(of, wanted, known, exposable).await?;
    let addr = wanted.map_or(known, ListenAddr::as_str).to_owned();
    TcpListener::bind(&addrs[..]).await.map_err(|source| ServeError::Listen { what: of.0, addr, flag: of.1, source })
}

/// Listens for Redis clients. An address that was not asked for may be in use, by a Redis server for example; then the node serves no Redis clients.
pub(super) async fn listen_for_redis_clients(
    wanted: Option<&ListenAddr>,
    known: &str,
    exposable: Exposable,
) -> Result<Option<TcpListener>, ServeError> {
    match listen(RESP, wanted, known, exposable).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if wanted.is_some() => Err(error),
        Err(error) => {
            warn!(addr = known, %error, "serving no Redis clients: free the address, or choose another with --resp-listen");
            Ok(None)
        }
    }
}

/// Resolves and checks the addresses on which [`listen`] would listen.
pub(super) async fn check(
    (what, flag): For,
    wanted: Option<&ListenAddr>,
    known: &str,
    exposable: Exposable,
) -> Result<Vec<SocketAddr>, ServeError> {
    let addr = wanted.map_or(known, ListenAddr::as_str);
    let failed = |source| ServeError::Listen { what, addr: addr.to_owned(), flag, source };
    // The checked addresses are the ones that are listened on: the name may resolve differently a moment later.
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host(addr).await.map_err(failed)?.collect();
    if !exposable.allows(flag) && addrs.iter().any(|addr| !addr.ip().to_canonical().is_loopback()) {
        return Err(ServeError::Exposed { what, addr: addr.to_owned(), flag });
    }
    Ok(addrs)
}

/// The address as text.
pub(super) fn shown(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "an unknown address".to_owned(), |addr| addr.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_that_other_machines_reach_need_tls_and_users_or_insecure() {
        let (no, yes) = (Exposable { clients: false, peers: false }, Exposable { clients: true, peers: true });
        // The address comes from the cluster's history, or from a flag.
        let any: ListenAddr = "0.0.0.0:0".parse().unwrap();
        for (wanted, known) in
            [(None, "0.0.0.0:0"), (None, "[::]:0"), (None, "192.0.2.1:1"), (Some(&any), "127.0.0.1:0")]
        {
            let refused = listen(HTTP, wanted, known, no).await;
            assert!(matches!(refused, Err(ServeError::Exposed { .. })), "{known}: {refused:?}");
        }
        let here: ListenAddr = "localhost:0".parse().unwrap();
        for (wanted, known) in [(None, "127.0.0.1:0"), (None, "127.9.9.9:0"), (Some(&here), "192.0.2.1:1")] {
            let listener = listen(PEERS, wanted, known, no).await.unwrap();
            assert!(listener.local_addr().unwrap().ip().is_loopback());
        }
        // This is allowed, and then fails because the address is not this machine's.
        let elsewhere = listen(PEERS, None, "192.0.2.1:1", yes).await;
        assert!(matches!(elsewhere, Err(ServeError::Listen { .. })), "{elsewhere:?}");
        let of_clients = Exposable { clients: true, peers: false };
        assert!(matches!(listen(PEERS, None, "0.0.0.0:0", of_clients).await, Err(ServeError::Exposed { .. })));
        assert!(listen(HTTP, None, "0.0.0.0:0", of_clients).await.is_ok());
    }
}
