//! The server processes whose CPU time is measured.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cartwheel_client::{Client, HomeTable};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::BenchError;
use super::connection::{Connection, Endpoint};
use super::cpu;
use super::dial::Dial;
use super::resp::{self, Reply};
use super::wire::Wire;

/// The time in which a node must return its process id.
const RESPONSE_WITHIN: Duration = Duration::from_secs(5);
/// The command name of a node's process. A renamed binary is expected to have the name of this process.
const COMMAND: &str = "cartwheel";
/// The command names of servers that speak the Redis protocol.
const REDIS_COMMANDS: [&str; 3] = ["redis-server", "valkey-server", COMMAND];

/// The processes by id, each with its name in a report.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers(BTreeMap<u32, String>);

/// The CPU time used by each process so far.
#[derive(Clone, Debug)]
pub(super) struct Reading(BTreeMap<u32, Duration>);

#[derive(Deserialize)]
struct Ring {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    name: String,
    http: String,
}

#[derive(Deserialize)]
struct Ready {
    pid: u32,
}

impl Servers {
    /// The processes named on the command line.
    ///
    /// # Errors
    /// If a process does not exist on this machine.
    pub(super) fn from_pids(pids: &[u32]) -> Result<Self, BenchError> {
        let named = |&pid: &u32| cpu::of(pid).map(|used| (pid, used.command)).ok_or(BenchError::NoSuchProcess(pid));
        pids.iter().map(named).collect::<Result<_, _>>().map(Self)
    }

    /// The processes of the cluster's nodes on this machine, and the number of nodes of the cluster.
    pub(super) async fn find(endpoints: &[Endpoint]) -> (Self, usize) {
        let own = cpu::of(std::process::id()).map(|used| used.command).unwrap_or_default();
        let (mut members, dial) =
            (Vec::new(), endpoints.first().map(|endpoint| endpoint.dial.clone()).unwrap_or_default());
        for endpoint in endpoints {
            if let Some(ring) = fetch::<Ring>(&endpoint.authority, &endpoint.dial, "/v1/cluster/ring").await {
                members = ring.members;
                break;
            }
        }
        let count = members.len();
        let mut found = BTreeMap::new();
        for member in members.into_iter().filter(|member| is_here(&member.http)) {
            let Some(Ready { pid }) = fetch(&member.http, &dial, "/readyz").await else { continue };
            // A tunnel listens on this machine too, but the id then belongs to a process on another machine.
            if cpu::of(pid).is_some_and(|used| used.command == COMMAND || used.command == own) {
                found.insert(pid, member.name);
            }
        }
        (Self(found), count)
    }

    /// The processes on this machine of servers that speak the Redis protocol.
    pub(super) async fn find_redis(addresses: &[String]) -> Self {
        let mut found = BTreeMap::new();
        for address in addresses.iter().filter(|address| is_here(address)) {
            let Some(pid) = redis_pid(address).await else { continue };
            if cpu::of(pid).is_some_and(|used| REDIS_COMMANDS.contains(&&*used.command)) {
                found.insert(pid, address.clone());
            }
        }
        Self(found)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The ids of the processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }

    /// The name of a process in a report.
    pub(super) fn name(&self, pid: u32) -> &str {
        self.0.get(&pid).map_or("", String::as_str)
    }

    /// Reads the CPU time of each process. Processes that have ended are left out.
    pub(super) fn read(&self) -> Reading {
        Reading(self.0.keys().filter_map(|&pid| Some((pid, cpu::of(pid)?.time))).collect())
    }
}

impl Reading {
    /// The CPU time of each process since `earlier`. Processes that have ended since are left out.
    pub(super) fn since(&self, earlier: &Self) -> BTreeMap<u32, Duration> {
        let used = |(pid, now): (&u32, &Duration)| Some((*pid, now.saturating_sub(*earlier.0.get(pid)?)));
        self.0.iter().filter_map(used).collect()
    }
}

/// Parses an endpoint.
///
/// # Errors
/// If `authority` is invalid in an HTTP request.
pub(super) fn endpoint(authority: &str, dial: &Dial) -> Result<Endpoint, BenchError> {
    let host = authority.parse().map_err(|_| BenchError::Endpoint(authority.to_owned()))?;
    Ok(Endpoint { authority: authority.to_owned(), host, dial: dial.clone() })
}

/// Reads the ring. Returns the homes of all keys, and the endpoints of the members to which they refer.
///
/// # Errors
/// If the ring cannot be read or used.
pub(super) async fn ring(client: &Client, dial: &Dial) -> Result<(Arc<HomeTable>, Arc<[Endpoint]>), BenchError> {
    let ring = client.ring().await?;
    let members = ring.members.iter().map(|member| endpoint(&member.http, dial)).collect::<Result<_, _>>()?;
    Ok((Arc::new(HomeTable::new(&ring)?), members))
}

fn is_here(authority: &str) -> bool {
    authority.to_socket_addrs().is_ok_and(|mut addrs| addrs.all(|addr: SocketAddr| addr.ip().is_loopback()))
}

/// The process id that a server reports in `INFO server`.
async fn redis_pid(address: &str) -> Option<u32> {
    let mut request = Vec::new();
    resp::command(&mut request, &[b"INFO", b"server"]);
    let parse = |bytes: &[u8]| {
        let pid = |reply: Reply<'_>| match reply {
            Reply::Bulk(info) => {
                let info = String::from_utf8_lossy(info);
                info.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
            }
            _ => None,
        };
        Ok(resp::reply(bytes)?.map(|(reply, length)| (pid(reply), length)))
    };
    Wire::new(address.to_owned(), RESPONSE_WITHIN).call(&request, parse).await.ok()?
}

async fn fetch<T: DeserializeOwned>(authority: &str, dial: &Dial, path: &str) -> Option<T> {
    let endpoints: Arc<[Endpoint]> = Arc::new([endpoint(authority, dial).ok()?]);
    let request = Request::get(path).body(Full::new(Bytes::new())).ok()?;
    let response = Connection::new(endpoints, 0, RESPONSE_WITHIN).call(request).await.ok()?;
    if response.status == StatusCode::OK { serde_json::from_slice(&response.body).ok() } else { None }
}
