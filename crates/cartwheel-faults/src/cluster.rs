//! The cluster under test: its nodes in three zones, and in each zone a host for clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cartwheel_server::lifecycle::bootstrap::{self, Site};
use cartwheel_server::lifecycle::renew;
use rustix::process::Signal;

use crate::FaultsError;
use crate::cleanup::RunDir;
use crate::disk::SmallDisk;
use crate::network::{Host, Network};
use crate::node::{Membership, Node, SHARDS};
use crate::outages::{Cause, Outages};
use crate::probe;

/// The number of zones.
pub const ZONES: usize = 3;
/// How long a node may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(30);
const SMALL_DISK_MIB: u32 = 256;

/// The numbers of nodes in a scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeCounts {
    /// The nodes that bootstrap the cluster. Those of a zone have consecutive numbers.
    pub initial: u8,
    /// The nodes that may join later, one zone after another.
    pub joiners: u8,
}

/// A running cluster. Dropping it ends all processes and removes the network, the disks and the data.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they must be dropped.
    nodes: Vec<Node>,
    disks: Vec<(usize, SmallDisk)>,
    network: Network,
    outages: Arc<Outages>,
    bin: PathBuf,
    run_dir: RunDir,
}

impl Cluster {
    /// Bootstraps a cluster and waits until all of its nodes are ready. The nodes in `with_small_disk` get a small disk of their own. Nodes are counted
    /// from 0, the joiners last; node i is named node-(i+1).
    ///
    /// # Errors
    /// If a part of the system cannot be set up, or a node does not become ready.
    pub async fn start(bin: &Path, node_counts: NodeCounts, with_small_disk: &[usize]) -> Result<Self, FaultsError> {
        let NodeCounts { initial, joiners } = node_counts;
        let network = Network::new(initial + joiners + ZONES as u8)?;
        let run_dir = RunDir::new()?;
        let data = run_dir.path().join("data");
        let seeds: Vec<String> = (0..initial).map(|node| site(Host(node), 0).peer_addr).collect();
        let node = |number: u8| {
            let (at, initial) = (usize::from(number), usize::from(initial));
            let is_initial = at < initial;
            let zone = if is_initial { at * ZONES / initial } else { (at - initial) % ZONES };
            let name = format!("node-{}", number + 1);
            // Not in the data directory, because that disk may be full.
            let (dir, log) = (data.join(&name), run_dir.path().join(format!("{name}.log")));
            let clock = run_dir.path().join(format!("{name}.clock"));
            let membership = if is_initial { Membership::Member } else { Membership::Outside };
            let seeds = if is_initial { Vec::new() } else { seeds.clone() };
            let (host, site) = (Host(number), site(Host(number), zone));
            Node { name, dir, site, zone, host, membership, seeds, log, clock, process: None }
        };
        let nodes: Vec<Node> = (0..initial + joiners).map(node).collect();
        let sites: Vec<Site> = nodes[..initial.into()].iter().map(|node| node.site.clone()).collect();
        bootstrap::bootstrap(&data, &sites, SHARDS)?;
        let (outages, bin) = (Arc::default(), bin.to_path_buf());
        let mut cluster = Self { nodes, disks: Vec::new(), network, outages, bin, run_dir };
        for &node in with_small_disk {
            let disk = SmallDisk::mount_on(&cluster.nodes[node].dir, SMALL_DISK_MIB)?;
            cluster.disks.push((node, disk));
        }
        for node in &mut cluster.nodes[..initial.into()] {
            node.start(&cluster.network, &cluster.bin)?;
        }
        for node in 0..initial.into() {
            cluster.ready(node).await?;
        }
        Ok(cluster)
    }

    /// All nodes, also those that are not members.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The virtual network of its nodes and clients.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// The times at which clients cannot reach nodes.
    pub const fn outages(&self) -> &Arc<Outages> {
        &self.outages
    }

    /// The nodes placed in a zone, members or not.
    pub fn nodes_in(&self, zone: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(move |&node| self.nodes[node].zone == zone)
    }

    /// The nodes with this relation to the cluster.
    pub fn nodes_that_are(&self, membership: Membership) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].membership == membership).collect()
    }

    /// Records a node's relation to the cluster.
    pub fn set_membership(&mut self, node: usize, membership: Membership) {
        self.nodes[node].membership = membership;
    }

    /// The first node of a zone.
    pub fn first_in(&self, zone: usize) -> usize {
        self.nodes_in(zone).next().unwrap_or_default()
    }

    /// The host of a zone's clients.
    pub fn clients_of(&self, zone: usize) -> Host {
        Host((self.nodes.len() + zone) as u8)
    }

    /// The addresses of all serving nodes in the order in which a client in `zone` should try them: its own zone first, beginning with node
    /// number `first` of it.
    pub fn endpoints_for(&self, zone: usize, first: usize) -> Vec<String> {
        let serving = |zone| self.nodes_in(zone).filter(|&node| self.nodes[node].is_serving());
        let mut own: Vec<usize> = serving(zone).collect();
        let first = first % own.len().max(1);
        own.rotate_left(first);
        let others = (1..ZONES).flat_map(|further| serving((zone + further) % ZONES));
        own.into_iter().chain(others).map(|node| self.nodes[node].endpoint()).collect()
    }

    /// Kills a node with SIGKILL.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill(&mut self, node: usize) -> Result<(), FaultsError> {
        self.begin_outage(node);
        self.nodes[node].kill().await
    }

    /// Kills several nodes with SIGKILL at the same moment.
    ///
    /// # Errors
    /// If one is not running.
    pub async fn kill_at_once(&mut self, nodes: &[usize]) -> Result<(), FaultsError> {
        for &node in nodes {
            self.begin_outage(node);
            self.nodes[node].signal(Signal::KILL)?;
        }
        for &node in nodes {
            self.nodes[node].kill().await?;
        }
        Ok(())
    }

    /// Stops a node with SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn stop(&mut self, node: usize) -> Result<(), FaultsError> {
        self.begin_outage(node);
        self.nodes[node].stop().await
    }

    /// Starts a joiner, which then waits to be added.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_outside(&mut self, node: usize) -> Result<(), FaultsError> {
        self.nodes[node].start(&self.network, &self.bin)
    }

    /// Starts a node on its existing data, and waits until it is ready.
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
    /// If it is not running.
    pub fn pause(&self, node: usize) -> Result<(), FaultsError> {
        self.begin_outage(node);
        self.nodes[node].signal(Signal::STOP)
    }

    /// Resumes a paused node.
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&self, node: usize) -> Result<(), FaultsError> {
        self.nodes[node].signal(Signal::CONT)?;
        self.outages.end(&self.nodes[node].endpoint(), Cause::Process);
        Ok(())
    }

    /// Cuts off a zone, its nodes and clients: no packet goes in or out.
    ///
    /// # Errors
    /// If the network cannot be changed.
    pub fn cut_off(&self, zone: usize) -> Result<(), FaultsError> {
        let outside: Vec<usize> = (0..ZONES).filter(|&other| other != zone).collect();
        for affected in &self.nodes {
            let zones = if affected.zone == zone { &outside[..] } else { &[zone] };
            self.outages.begin(&affected.endpoint(), zones, Cause::Network);
        }
        let (inside, outside) = (self.hosts_in(&[zone]), self.hosts_in(&outside));
        self.network.cut(&inside, &outside)?;
        self.network.cut(&outside, &inside)
    }

    /// Drops all packets from one node to another; the other direction works.
    ///
    /// # Errors
    /// If the network cannot be changed.
    pub fn cut_link(&self, node: usize, other: usize) -> Result<(), FaultsError> {
        self.network.cut(&[self.nodes[node].host], &[self.nodes[other].host])
    }

    /// Drops all packets from a node to nodes and clients of other zones; the other direction works.
    ///
    /// # Errors
    /// If the network cannot be changed.
    pub fn mute_out_of_zone(&self, node: usize) -> Result<(), FaultsError> {
        let zone = self.nodes[node].zone;
        let others: Vec<usize> = (0..ZONES).filter(|&other| other != zone).collect();
        self.outages.begin(&self.nodes[node].endpoint(), &others, Cause::Network);
        self.network.cut(&[self.nodes[node].host], &self.hosts_in(&others))
    }

    /// Ends all cuts.
    ///
    /// # Errors
    /// If the network cannot be changed.
    pub fn heal_network(&self) -> Result<(), FaultsError> {
        self.reconnect(self.network.hosts().collect())
    }

    /// Ends all cuts but those around one node. Even packets that its dead process left in its sockets stay undelivered.
    ///
    /// # Errors
    /// If the network cannot be changed.
    pub fn heal_network_except(&self, node: usize) -> Result<(), FaultsError> {
        self.reconnect(self.network.hosts().filter(|&host| host != self.nodes[node].host).collect())
    }

    fn reconnect(&self, hosts: Vec<Host>) -> Result<(), FaultsError> {
        self.network.reconnect(&hosts, &hosts)?;
        let joined = self.nodes.iter().filter(|node| hosts.contains(&node.host));
        joined.for_each(|node| self.outages.end(&node.endpoint(), Cause::Network));
        Ok(())
    }

    /// The small disk of a node, if it has one.
    pub fn small_disk(&self, node: usize) -> Option<&SmallDisk> {
        self.disks.iter().find(|(of, _)| *of == node).map(|(_, disk)| disk)
    }

    /// Kills a node if it runs, and empties its data directory.
    ///
    /// # Errors
    /// If its data cannot be removed.
    pub async fn wipe(&mut self, node: usize) -> Result<(), FaultsError> {
        if !self.nodes[node].has_been_reaped() && self.nodes[node].pid().is_some() {
            self.kill(node).await?;
        }
        let dir = &self.nodes[node].dir;
        let failed = || FaultsError::system(format!("wipe {}", dir.display()));
        std::fs::remove_dir_all(dir).map_err(failed())?;
        std::fs::create_dir(dir).map_err(failed())
    }

    /// Starts a node whose disk was wiped. `cartwheel renew` makes its new incarnation, under the same name, from the other nodes' data
    /// directories.
    ///
    /// # Errors
    /// If no new incarnation can be made, or the node does not become ready.
    pub async fn start_as_new_incarnation(&mut self, node: usize) -> Result<(), FaultsError> {
        self.renew(node)?;
        self.restart(node).await
    }

    /// Makes a new incarnation of a node whose disk was wiped, from the other nodes' data directories.
    ///
    /// # Errors
    /// If no incarnation can be made.
    pub fn renew(&self, node: usize) -> Result<(), FaultsError> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        // A node that has lost its disk too cannot serve as a template.
        let like: Vec<_> =
            others.map(|(_, other)| other.dir.clone()).filter(|dir| dir.join("node.json").exists()).collect();
        let at = &self.nodes[node];
        renew::renew(&at.dir, &like, &at.name)?;
        Ok(())
    }

    /// Starts a node on its existing data without waiting for it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_again(&mut self, node: usize) -> Result<(), FaultsError> {
        self.nodes[node].start(&self.network, &self.bin)
    }

    /// Shifts a node's clock by `ms` milliseconds, whether it runs or not.
    ///
    /// # Errors
    /// If the file with the offset cannot be written.
    pub fn shift_clock(&self, node: usize, ms: i64) -> Result<(), FaultsError> {
        let node = &self.nodes[node];
        let failed = FaultsError::system(format!("shift the clock of {}", node.name));
        std::fs::write(&node.clock, format!("{ms}\n")).map_err(failed)
    }

    /// Copies a node's data directory while the node runs, as a snapshot of its disk would.
    ///
    /// # Errors
    /// If nothing can be copied.
    pub async fn copy_while_running(&self, node: usize) -> Result<PathBuf, FaultsError> {
        let dir = &self.nodes[node].dir;
        let copy = dir.with_extension("copy");
        let failed = || FaultsError::system(format!("copy {}", dir.display()));
        if copy.exists() {
            std::fs::remove_dir_all(&copy).map_err(failed())?;
        }
        // `cp` fails on files that the storage engine removes meanwhile; the rest is copied.
        let cp = tokio::process::Command::new("cp").args(["-a", "--sparse=always"]).arg(dir).arg(&copy).output().await;
        cp.map_err(failed())?;
        Ok(copy)
    }

    /// Replaces a dead node's data directory with a copy.
    ///
    /// # Errors
    /// If the file system does not allow it.
    pub fn restore(&self, node: usize, copy: &Path) -> Result<(), FaultsError> {
        let dir = &self.nodes[node].dir;
        let failed = || FaultsError::system(format!("replace {} with its copy", dir.display()));
        std::fs::remove_dir_all(dir).map_err(failed())?;
        std::fs::rename(copy, dir).map_err(failed())
    }

    /// Whether a node exits with success within this time. If it does not exit, it is killed.
    pub async fn ended_by_itself(&mut self, node: usize, within: Duration) -> bool {
        self.nodes[node].ended_by_itself(within).await
    }

    /// Whether a node has ended without being killed or stopped.
    pub fn has_died(&mut self, node: usize) -> bool {
        self.nodes[node].has_died()
    }

    /// The name of a member or joiner that has ended without being killed or stopped, if there is one.
    pub fn died(&mut self) -> Option<String> {
        let mut staying =
            self.nodes.iter_mut().filter(|node| matches!(node.membership, Membership::Outside | Membership::Member));
        staying.find_map(|node| node.has_died().then(|| node.name.clone()))
    }

    /// Keeps data and logs when this is dropped, and returns their directory.
    pub fn keep(&mut self) -> PathBuf {
        self.run_dir.keep();
        self.run_dir.path().to_path_buf()
    }

    /// Records that from now on clients may get no response from a node.
    pub fn begin_outage(&self, node: usize) {
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
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn ready(&mut self, node: usize) -> Result<(), FaultsError> {
        let clients = self.clients_of(self.nodes[node].zone);
        let (addr, pid) = (self.nodes[node].site.http_addr.clone(), self.nodes[node].pid().unwrap_or_default());
        let ready = self.network.inside(clients, move || async move {
            while !probe::is_ready(&addr, pid).await {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
        });
        let starting = &mut self.nodes[node];
        let died = async {
            while !starting.has_died() {
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

fn site(host: Host, zone: usize) -> Site {
    let addr = |port: u16| format!("{}:{port}", host.addr());
    let (peer_addr, http_addr, resp_addr) = (addr(7400), addr(8080), addr(6380));
    Site { zone: format!("zone-{}", zone + 1), host: host.addr().to_string(), peer_addr, http_addr, resp_addr }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_says_where_a_node_is() {
        let site = site(Host(4), 2);
        assert_eq!((&*site.zone, &*site.host, &*site.peer_addr), ("zone-3", "10.77.0.5", "10.77.0.5:7400"));
    }
}
