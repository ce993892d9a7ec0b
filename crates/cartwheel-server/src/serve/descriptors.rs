//! Divides the open files that the process may have among clients, peers and the store.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// The most connections of clients, over all APIs, and of peers, that a node takes.
const CLIENTS_MAX: usize = 10_000;
const PEERS_MAX: usize = 32_768;

/// The maximum numbers of connections. The remaining files are for the store, which fails without them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Connections {
    pub(super) clients: usize,
    pub(super) peers: usize,
}

/// Raises the limit of open files as far as the system allows, and divides it.
pub(super) fn share_out() -> Connections {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let shares = of_files(files);
    if shares.clients < CLIENTS_MAX {
        let (files, Connections { clients, peers }) = (files.unwrap_or(u64::MAX), shares);
        warn!(
            files,
            clients_max = clients,
            peers_max = peers,
            files_wanted = CLIENTS_MAX * 2,
            "open files limit connections; raise the limit (ulimit -n)"
        );
    }
    shares
}

/// Half for clients, an eighth for peers.
fn of_files(files: Option<u64>) -> Connections {
    let files = usize::try_from(files.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    Connections { clients: (files / 2).clamp(1, CLIENTS_MAX), peers: (files / 8).clamp(1, PEERS_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_keeps_its_share_of_files() {
        assert_eq!(of_files(None), Connections { clients: 10_000, peers: 32_768 });
        assert_eq!(of_files(Some(20_000)), Connections { clients: 10_000, peers: 2_500 });
        assert_eq!(of_files(Some(1_024)), Connections { clients: 512, peers: 128 });
        assert_eq!(of_files(Some(0)), Connections { clients: 1, peers: 1 });
    }
}
