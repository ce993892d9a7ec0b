//! The connections with Redis clients, as `CLIENT LIST` shows them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::access::DEFAULT_USER;

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Client {
    /// Its number. None is used twice while the node runs.
    pub(super) id: u64,
    addr: Option<SocketAddr>,
    local: Option<SocketAddr>,
    begun: Instant,
    /// When the last command came, in seconds since `begun`.
    last: AtomicU64,
    database: AtomicU32,
    version: AtomicU32,
    texts: Mutex<Texts>,
    /// Wakes the connection, which is to be closed.
    pub(super) killed: Notify,
}

/// What a client says of itself.
#[derive(Clone, Debug, Default)]
struct Texts {
    name: String,
    /// The user that it is, if that is not the default one.
    user: String,
    library: String,
    library_version: String,
}

impl Client {
    pub(super) fn name(&self) -> String {
        self.texts().name.clone()
    }

    pub(super) fn set_name(&self, name: String) {
        self.texts().name = name;
    }

    pub(super) fn set_user(&self, user: String) {
        self.texts().user = user;
    }

    /// Where the client is.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.addr.map(|addr| addr.ip())
    }

    pub(super) fn set_library(&self, library: String) {
        self.texts().library = library;
    }

    pub(super) fn set_library_version(&self, version: String) {
        self.texts().library_version = version;
    }

    pub(super) fn set_database(&self, number: u32) {
        self.database.store(number, Ordering::Relaxed);
    }

    pub(super) fn set_version(&self, version: u32) {
        self.version.store(version, Ordering::Relaxed);
    }

    /// A command has come.
    pub(super) fn seen(&self) {
        self.last.store(self.begun.elapsed().as_secs(), Ordering::Relaxed);
    }

    /// Whether it has the address that `CLIENT KILL` names.
    pub(super) fn is_at(&self, addr: &[u8]) -> bool {
        self.addr.is_some_and(|own| own.to_string().as_bytes() == addr)
    }

    /// The line of `CLIENT LIST`. `command` is what it is doing.
    pub(super) fn line(&self, command: &str) -> String {
        let addr = |addr: Option<SocketAddr>| addr.map_or_else(|| "unknown".to_owned(), |addr| addr.to_string());
        let age = self.begun.elapsed().as_secs();
        let idle = age.saturating_sub(self.last.load(Ordering::Relaxed));
        let Texts { name, user, library, library_version } = self.texts().clone();
        let user = if user.is_empty() { DEFAULT_USER } else { &user };
        format!(
            "id={} addr={} laddr={} fd=0 name={name} age={age} idle={idle} flags=N db={} sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 \
             argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={command} user={user} redir=-1 resp={} lib-name={library} \
             lib-ver={library_version}",
            self.id,
            addr(self.addr),
            addr(self.local),
            self.database.load(Ordering::Relaxed),
            self.version.load(Ordering::Relaxed),
        )
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Clients {
    numbers: AtomicU64,
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
}

/// A connection's entry, until it is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
}

impl Clients {
    /// Registers a connection.
    pub(super) fn register(self: &Arc<Self>, addr: Option<SocketAddr>, local: Option<SocketAddr>) -> Registered {
        let id = 1 + self.numbers.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client {
            id,
            addr,
            local,
            begun: Instant::now(),
            last: AtomicU64::new(0),
            database: AtomicU32::new(0),
            version: AtomicU32::new(2),
            texts: Mutex::default(),
            killed: Notify::new(),
        });
        self.lock().insert(id, client.clone());
        Registered { clients: self.clone(), client }
    }

    /// All connections, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many there ever were.
    pub(super) fn received(&self) -> u64 {
        self.numbers.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.clients.lock().remove(&self.client.id);
    }
}
