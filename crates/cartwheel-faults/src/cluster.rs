//! The cluster that the faults happen to: its nodes in three zones, and in each zone a host for clients.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cartwheel::cli::RenewArgs;
use cartwheel::founding::{self, Site};
use cartwheel::renewing;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::FaultsError;
use crate::disk::SmallDisk;
use crate::leftovers::RunDir;
use crate::network::{Host, Network};
use crate::node::Node;
use crate::outages::{Cause, Outages};

/// How many zones there are.
pub const ZONES: usize = 3;
/// How long a node may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(30);
/// More than a node says about whether it is ready.
const ANSWER_BYTES_MAX: u64 = 4_096;
/// More than one, so that requests have to find theirs.
const SHARDS: NonZeroU32 = NonZeroU32::new(2).unwrap();
/// The size of a small disk.
const SMALL_DISK_MIB: u32 = 256;

/// A running cluster. All of it is gone when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they must go.
    nodes: Vec<Node>,
    disks: Vec<(usize, SmallDisk)>,
    network: Network,
    outages: Arc<Outages>,
    bin: PathBuf,
    run_dir: RunDir,
}

impl Cluster {
    /// Founds a cluster of so many nodes, of which some may have a small disk, and waits until all are ready. Nodes are counted
    /// from 0; node i is called node-(i+1).
    ///
    /// # Errors
    /// If that fails.
    pub async fn start(bin: &Path, nodes: u8, with_small_disk: &[usize]) -> Result<Self, FaultsError> {
        let count = usize::from(nodes);
        let network = Network::new(nodes + ZONES as u8)?;
        let run_dir = RunDir::new()?;
        let sites: Vec<Site> = (0..nodes).map(|node| site(Host(node), zone_of(usize::from(node), count))).collect();
        let founded = founding::found(&run_dir.path().join("data"), &sites, SHARDS)?;
        let node = |(host, at): (u8, founding::NodeDir)| {
            // Not among the data, whose disk may be full.
            let log = run_dir.path().join(format!("{}.log", at.member.name));
            Node::new(at, Host(host), log)
        };
        let nodes: Vec<Node> = (0..).zip(founded).map(node).collect();
        let (outages, bin) = (Arc::default(), bin.to_path_buf());
        let mut cluster = Self { nodes, disks: Vec::new(), network, outages, bin, run_dir };
        for &node in with_small_disk {
            let disk = SmallDisk::under(&cluster.nodes[node].at.dir, SMALL_DISK_MIB)?;
            cluster.disks.push((node, disk));
        }
        for node in &mut cluster.nodes {
            node.start(&cluster.network, &cluster.bin)?;
        }
        for node in 0..count {
            cluster.ready(node).await?;
        }
        Ok(cluster)
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Its network.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// When clients cannot reach which nodes.
    pub const fn outages(&self) -> &Arc<Outages> {
        &self.outages
    }

    /// The nodes in a zone.
    pub fn nodes_in(&self, zone: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.nodes.len();
        (0..count).filter(move |&node| zone_of(node, count) == zone)
    }

    /// The first node in a zone.
    pub fn first_in(&self, zone: usize) -> usize {
        self.nodes_in(zone).next().unwrap_or_default()
    }

    /// Where a zone's clients are.
    pub fn clients_of(&self, zone: usize) -> Host {
        Host((self.nodes.len() + zone) as u8)
    }

    /// The addresses of all nodes as a client in `zone` should try them: those of its own zone first, beginning with the `first`.
    pub fn endpoints_for(&self, zone: usize, first: usize) -> Vec<String> {
        let mut own: Vec<usize> = self.nodes_in(zone).collect();
        let first = first % own.len().max(1);
        own.rotate_left(first);
        let others = (1..ZONES).flat_map(|further| self.nodes_in((zone + further) % ZONES));
        own.into_iter().chain(others).map(|node| self.nodes[node].endpoint()).collect()
    }

    /// Kills a node with SIGKILL.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self, node: usize) -> Result<(), FaultsError> {
        self.away(node);
        self.nodes[node].kill().await
    }

    /// Asks a node to stop, and waits until it has.
    ///
    /// # Errors
    /// If it does not.
    pub async fn stop(&mut self, node: usize) -> Result<(), FaultsError> {
        self.away(node);
        self.nodes[node].stop().await
    }

    /// Starts a node again on what it left behind, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn restart(&mut self, node: usize) -> Result<(), FaultsError> {
        self.nodes[node].start(&self.network, &self.bin)?;
        self.ready(node).await?;
        self.outages.end(&self.nodes[node].endpoint(), Cause::Process);
        Ok(())
    }

    /// Pauses a node's process with SIGSTOP.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, node: usize) -> Result<(), FaultsError> {
        self.away(node);
        self.nodes[node].signal(Signal::STOP)
    }

    /// Lets a paused node go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self, node: usize) -> Result<(), FaultsError> {
        self.nodes[node].signal(Signal::CONT)?;
        self.outages.end(&self.nodes[node].endpoint(), Cause::Process);
        Ok(())
    }

    /// Cuts a zone off, nodes and clients: nothing goes in or out.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn cut_off(&self, zone: usize) -> Result<(), FaultsError> {
        let outside: Vec<usize> = (0..ZONES).filter(|&other| other != zone).collect();
        for (node, it) in self.nodes.iter().enumerate() {
            let zones = if zone_of(node, self.nodes.len()) == zone { &outside[..] } else { &[zone] };
            self.outages.begin(&it.endpoint(), zones, Cause::Network);
        }
        let (inside, outside) = (self.hosts_in(&[zone]), self.hosts_in(&outside));
        self.network.cut(&inside, &outside)?;
        self.network.cut(&outside, &inside)
    }

    /// Loses all that one node sends to another; what that one sends arrives.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn mute_towards(&self, node: usize, other: usize) -> Result<(), FaultsError> {
        self.network.cut(&[self.nodes[node].host], &[self.nodes[other].host])
    }

    /// Loses all that a node sends out of its zone, to nodes and clients; what those send arrives.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn mute_out_of_zone(&self, node: usize) -> Result<(), FaultsError> {
        let zone = zone_of(node, self.nodes.len());
        let others: Vec<usize> = (0..ZONES).filter(|&other| other != zone).collect();
        self.outages.begin(&self.nodes[node].endpoint(), &others, Cause::Network);
        self.network.cut(&[self.nodes[node].host], &self.hosts_in(&others))
    }

    /// Ends all cuts.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn join(&self) -> Result<(), FaultsError> {
        self.join_all(self.network.hosts().collect())
    }

    /// Ends all cuts but those around a node: not even what its dead process left in its sockets gets out.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn join_without(&self, node: usize) -> Result<(), FaultsError> {
        self.join_all(self.network.hosts().filter(|&host| host != self.nodes[node].host).collect())
    }

    fn join_all(&self, hosts: Vec<Host>) -> Result<(), FaultsError> {
        self.network.join(&hosts, &hosts)?;
        let joined = self.nodes.iter().filter(|node| hosts.contains(&node.host));
        joined.for_each(|node| self.outages.end(&node.endpoint(), Cause::Network));
        Ok(())
    }

    /// The disk of a node that was given a small one.
    pub fn small_disk(&self, node: usize) -> Option<&SmallDisk> {
        self.disks.iter().find(|(of, _)| *of == node).map(|(_, disk)| disk)
    }

    /// Kills a node and takes away all that it stored.
    ///
    /// # Errors
    /// If it does not run, or its data cannot be removed.
    pub async fn wipe(&mut self, node: usize) -> Result<(), FaultsError> {
        self.kill(node).await?;
        let dir = &self.nodes[node].at.dir;
        let failed = || FaultsError::system(format!("wipe {}", dir.display()));
        std::fs::remove_dir_all(dir).map_err(failed())?;
        std::fs::create_dir(dir).map_err(failed())
    }

    /// Starts a node whose disk was wiped: under its name, as a new life, which `cartwheel renew` makes from what the others hold.
    ///
    /// # Errors
    /// If no new life can be made, or it does not become ready.
    pub async fn start_as_new_life(&mut self, node: usize) -> Result<(), FaultsError> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        let like = others.map(|(_, other)| other.at.dir.clone()).collect();
        let at = &self.nodes[node].at;
        renewing::run(&RenewArgs { dir: at.dir.clone(), like, name: at.member.name.clone() })?;
        self.restart(node).await
    }

    /// A node that ended though nobody ended it, if there is one.
    pub fn died(&mut self) -> Option<String> {
        self.nodes.iter_mut().find_map(|node| node.has_died().then(|| node.name().to_owned()))
    }

    /// Leaves data and logs where they are, and says where that is.
    pub fn keep(&mut self) -> PathBuf {
        self.run_dir.keep();
        self.run_dir.path().to_path_buf()
    }

    fn away(&self, node: usize) {
        self.outages.begin(&self.nodes[node].endpoint(), &[0, 1, 2], Cause::Process);
    }

    fn hosts_in(&self, zones: &[usize]) -> Vec<Host> {
        let in_zone = |&zone: &usize| {
            let nodes = self.nodes_in(zone).map(|node| self.nodes[node].host);
            nodes.chain([self.clients_of(zone)]).collect::<Vec<_>>()
        };
        zones.iter().flat_map(in_zone).collect()
    }

    /// Waits until a node is ready, as a client in its zone sees it.
    async fn ready(&mut self, node: usize) -> Result<(), FaultsError> {
        let clients = self.clients_of(zone_of(node, self.nodes.len()));
        let (addr, pid) = (self.nodes[node].at.member.http_addr.clone(), self.nodes[node].pid().unwrap_or_default());
        let ready = self.network.inside(clients, move || async move {
            while !is_ready(&addr, pid).await.unwrap_or(false) {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
        });
        let it = &mut self.nodes[node];
        let died = async {
            while !it.has_died() {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
        };
        let failed = tokio::select! {
            ready = tokio::time::timeout(READY_WITHIN, ready) => match ready {
                Ok(ready) => return ready,
                Err(_) => "was not ready in time",
            },
            () = died => "ended before it was ready",
        };
        Err(self.nodes[node].failed(failed))
    }
}

fn zone_of(node: usize, nodes: usize) -> usize {
    node * ZONES / nodes
}

fn site(host: Host, zone: usize) -> Site {
    let addr = |port: u16| format!("{}:{port}", host.addr());
    let (peer_addr, http_addr, resp_addr) = (addr(7400), addr(8080), addr(6380));
    Site { zone: format!("zone-{}", zone + 1), host: host.addr().to_string(), peer_addr, http_addr, resp_addr }
}

/// Asks the node at `addr`, in as little HTTP as that takes, whether it is ready and the process `pid`.
async fn is_ready(addr: &str, pid: u32) -> std::io::Result<bool> {
    let ask = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        Ok(answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("\"pid\":{pid}}}")))
    };
    tokio::time::timeout(Duration::from_secs(1), ask).await.unwrap_or(Ok(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_nodes_are_in_three_zones() {
        assert_eq!([0, 1, 2, 3, 4].map(|node| zone_of(node, 5)), [0, 0, 1, 1, 2]);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|node| zone_of(node, 6)), [0, 0, 1, 1, 2, 2]);
    }
}
