//! Where a node listens.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::ServeError;
use crate::config::ListenAddr;

/// For whom a node listens, and the flag that says where.
pub(super) type For = (&'static str, &'static str);
pub(super) const HTTP: For = ("HTTP", "http-listen");
pub(super) const ADMINISTRATORS: For = ("administrators", "admin-listen");
pub(super) const PEERS: For = ("peers", "peer-listen");

/// Listens where it is `wanted`, or at the address that the cluster knows. Where other machines can connect, only if that was
/// allowed.
pub(super) async fn listen(
    of: For,
    wanted: Option<&ListenAddr>,
    known: &str,
    insecure: bool,
) -> Result<TcpListener, ServeError> {
    let addrs = check(of, wanted, known, insecure).await?;
    let addr = wanted.map_or(known, ListenAddr::as_str).to_owned();
    TcpListener::bind(&addrs[..]).await.map_err(|source| ServeError::Listen { what: of.0, addr, flag: of.1, source })
}

/// The addresses at which [`listen`] would listen, if it may.
pub(super) async fn check(
    (what, flag): For,
    wanted: Option<&ListenAddr>,
    known: &str,
    insecure: bool,
) -> Result<Vec<SocketAddr>, ServeError> {
    let addr = wanted.map_or(known, ListenAddr::as_str);
    let failed = |source| ServeError::Listen { what, addr: addr.to_owned(), flag, source };
    // The addresses that are checked are the ones that are listened on: a name may mean something else a moment later.
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host(addr).await.map_err(failed)?.collect();
    if !insecure && addrs.iter().any(|addr| !addr.ip().to_canonical().is_loopback()) {
        return Err(ServeError::Exposed { what, addr: addr.to_owned(), flag });
    }
    Ok(addrs)
}

/// The address, for people.
pub(super) fn shown(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "an unknown address".to_owned(), |addr| addr.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_machines_are_listened_to_only_if_that_was_said() {
        // As the cluster's history says it, or a flag.
        let any: ListenAddr = "0.0.0.0:0".parse().unwrap();
        for (wanted, known) in
            [(None, "0.0.0.0:0"), (None, "[::]:0"), (None, "192.0.2.1:1"), (Some(&any), "127.0.0.1:0")]
        {
            let refused = listen(HTTP, wanted, known, false).await;
            assert!(matches!(refused, Err(ServeError::Exposed { .. })), "{known}: {refused:?}");
        }
        let here: ListenAddr = "localhost:0".parse().unwrap();
        for (wanted, known) in [(None, "127.0.0.1:0"), (None, "127.9.9.9:0"), (Some(&here), "192.0.2.1:1")] {
            let listener = listen(PEERS, wanted, known, false).await.unwrap();
            assert!(listener.local_addr().unwrap().ip().is_loopback());
        }
        // This is allowed, and then fails for another reason: the address is no machine's.
        let elsewhere = listen(PEERS, None, "192.0.2.1:1", true).await;
        assert!(matches!(elsewhere, Err(ServeError::Listen { .. })), "{elsewhere:?}");
    }
}
