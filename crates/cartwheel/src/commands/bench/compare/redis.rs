//! The local Redis Cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cartwheel_core::value::hash_slot::{HASH_SLOTS, hash_slot};
use tokio::process::Command;

use super::args::CompareArgs;
use super::client::{RedisClient, StoreClient};
use crate::cli::Durability;
use crate::commands::bench::local::LocalError;
use crate::commands::bench::local::process::{ServerProcess, free_ports};
use crate::commands::bench::resp::{self, Reply};
use crate::commands::bench::wire::Wire;

const BINARY: &str = "redis-server";
const MASTERS: usize = 3;
const REPLICAS_PER_MASTER: usize = 2;
const NODES: usize = MASTERS * (1 + REPLICAS_PER_MASTER);
/// The distance from a node's port to its port for other nodes, fixed by Redis.
const BUS_OFFSET: u16 = 10_000;
/// The time limit of a command that sets the cluster up.
const COMMAND_WITHIN: Duration = Duration::from_secs(10);

/// A Redis Cluster of three masters with two replicas each.
#[derive(Debug)]
pub(super) struct RedisCluster {
    /// The masters first, then the replicas of each master in turn.
    nodes: Vec<RedisNode>,
}

#[derive(Debug)]
struct RedisNode {
    process: ServerProcess,
    wire: Wire,
    port: u16,
}

/// The path of `redis-server`, if it is on the PATH.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(BINARY)).find(|file| file.is_file())
}

/// The version of a `redis-server`, such as `7.0.15`; empty if it is unknown.
pub(super) async fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output().await;
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or_default().to_owned()
}

/// The number of the master that holds a key, out of `masters`.
pub(super) fn master_of(key: &str, masters: usize) -> usize {
    usize::from(hash_slot(key.as_bytes())) * masters / usize::from(HASH_SLOTS)
}

/// The setting of `appendfsync` that is compared with a durability.
pub(super) const fn appendfsync(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "always",
        Durability::Os => "everysec",
    }
}

impl RedisCluster {
    /// Starts the processes with their data in `dir`, but does not wait for them.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub(super) fn start(binary: &Path, dir: &Path) -> Result<Self, LocalError> {
        let first = free_ports(NODES as u16, BUS_OFFSET)?;
        let start = |port: u16| {
            let name = format!("redis-{port}");
            let data = dir.join(&name);
            std::fs::create_dir_all(&data).map_err(|error| LocalError::Io("create a directory for Redis", error))?;
            let mut command = Command::new(binary);
            command
                .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
                .arg(&data)
                .args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"])
                // While replicas are still being set up, a master can seem to lack them. Then Redis would take one from another master, for good.
                .args(["--cluster-migration-barrier", "100"])
                .args(["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"]);
            let process = ServerProcess::start(name, command, data.join("log"))?;
            Ok(RedisNode { process, wire: Wire::new(format!("127.0.0.1:{port}"), COMMAND_WITHIN), port })
        };
        Ok(Self { nodes: (first..).take(NODES).map(start).collect::<Result<_, LocalError>>()? })
    }

    /// Makes a cluster of the processes, and waits until every slot has a master and every master has its replicas.
    ///
    /// # Errors
    /// If the processes do not become ready, or refuse a command.
    pub(super) async fn set_up(&mut self) -> Result<(), LocalError> {
        for node in &mut self.nodes {
            node.wait_for("ready", &["PING"], |reply| reply == "PONG").await?;
        }
        let (masters, replicas) = self.nodes.split_at_mut(MASTERS);
        for (number, master) in masters.iter_mut().enumerate() {
            // Distinct epochs, which must be set before the nodes meet, spare them an election.
            master.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await?;
            let slots = slots_of(number).map(|slot| slot.to_string());
            let words: Vec<String> = ["CLUSTER", "ADDSLOTS"].map(str::to_owned).into_iter().chain(slots).collect();
            master.command(&words.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        let ports: Vec<u16> = masters.iter().skip(1).chain(&*replicas).map(|node| node.port).collect();
        for port in ports {
            masters[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string()]).await?;
        }
        for (master, replicas) in masters.iter_mut().zip(replicas.chunks_mut(REPLICAS_PER_MASTER)) {
            let id = master.command(&["CLUSTER", "MYID"]).await?;
            for replica in replicas {
                // Refused until the replica has heard of the master.
                replica.wait_for("a replica", &["CLUSTER", "REPLICATE", &id], |reply| reply == "OK").await?;
            }
        }
        for node in &mut self.nodes {
            node.wait_for("in the cluster", &["CLUSTER", "INFO"], |info| info.contains("cluster_state:ok")).await?;
        }
        for master in &mut self.nodes[..MASTERS] {
            let has_replicas = |info: &str| info.matches("state=online").count() == REPLICAS_PER_MASTER;
            master.wait_for("replicated", &["INFO", "replication"], has_replicas).await?;
        }
        Ok(())
    }

    /// Sets `appendfsync` on every node.
    ///
    /// # Errors
    /// If a node refuses it.
    pub(super) async fn set_durability(&mut self, durability: Durability) -> Result<(), LocalError> {
        for node in &mut self.nodes {
            node.command(&["CONFIG", "SET", "appendfsync", appendfsync(durability)]).await?;
        }
        Ok(())
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.pid()).collect()
    }

    /// Clients of the cluster.
    pub(super) fn clients(&self, args: &CompareArgs) -> Vec<StoreClient> {
        let masters: Vec<String> = self.nodes[..MASTERS].iter().map(|node| node.wire.address().to_owned()).collect();
        let client = |_| StoreClient::Redis(RedisClient::new(&masters, Duration::from_millis(args.timeout_ms)));
        (0..args.connections).map(client).collect()
    }

    /// Kills all processes: their data is temporary.
    pub(super) async fn kill(self) {
        for node in self.nodes {
            node.process.kill().await;
        }
    }
}

impl RedisNode {
    /// Sends a command, and returns the text of its reply.
    async fn command(&mut self, words: &[&str]) -> Result<String, LocalError> {
        call(&mut self.wire, words).await.map_err(|why| {
            // A command that assigns slots has thousands of words.
            let command = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            LocalError::Redis { address: self.wire.address().to_owned(), command, why }
        })
    }

    /// Repeats a command until its reply is as expected.
    async fn wait_for(
        &mut self,
        state: &'static str,
        words: &[&str],
        is_expected: impl Fn(&str) -> bool,
    ) -> Result<(), LocalError> {
        let Self { process, wire, .. } = self;
        process.wait_until(state, async || call(wire, words).await.is_ok_and(|reply| is_expected(&reply))).await
    }
}

/// Sends a command, and returns the text of its reply, or why there is none.
async fn call(wire: &mut Wire, words: &[&str]) -> Result<String, String> {
    let mut request = Vec::new();
    resp::command(&mut request, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    let parse = |bytes: &[u8]| {
        let text = |reply: Reply<'_>| match reply {
            Reply::Status(text) => Ok(text.to_owned()),
            Reply::Bulk(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            Reply::Integer(number) => Ok(number.to_string()),
            Reply::Nil => Ok(String::new()),
            Reply::Error(text) => Err(text.to_owned()),
        };
        Ok(resp::reply(bytes)?.map(|(reply, length)| (text(reply), length)))
    };
    wire.call(&request, parse).await.unwrap_or_else(|error| Err(error.name().to_owned()))
}

/// The slots of a master.
fn slots_of(master: usize) -> impl Iterator<Item = u16> {
    (0..HASH_SLOTS).filter(move |&slot| usize::from(slot) * MASTERS / usize::from(HASH_SLOTS) == master)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_the_masters_that_have_their_slots() {
        let all: Vec<u16> = (0..MASTERS).flat_map(slots_of).collect();
        assert!(all.iter().copied().eq(0..HASH_SLOTS));
        for number in 0..1_000 {
            let key = format!("user{number}");
            assert!(slots_of(master_of(&key, MASTERS)).any(|slot| slot == hash_slot(key.as_bytes())), "{key}");
        }
    }
}
