//! A local cluster of Cartwheel.

use std::path::Path;

use cartwheel_client::{BucketChange, Client};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::LocalError;
use super::process::{ServerProcess, free_ports};
use crate::cli::Durability;
use crate::commands::bench::connection::Endpoint;
use crate::commands::bench::dial::Dial;
use crate::commands::bench::servers::{self, Servers};

/// The replicas of a key, those that a read usually waits for, and those that a write waits for.
const N: u8 = 3;
pub(in crate::commands::bench) const R: u8 = 2;
const W: u8 = 2;

/// Nodes under `cartwheel dev`.
#[derive(Debug)]
pub(in crate::commands::bench) struct LocalCluster {
    dev: ServerProcess,
    addresses: Vec<String>,
    resp_addresses: Vec<String>,
    pids: Vec<u32>,
}

impl LocalCluster {
    /// Starts the nodes of a new cluster in `dir`, but does not wait for them.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(in crate::commands::bench) fn start(dir: &Path, nodes: u16, shards: Option<u32>) -> Result<Self, LocalError> {
        // Node i, from 1, has the ports base + i, base + nodes + i and base + 2 * nodes + i.
        let base = free_ports(3 * nodes + 1, 0)?;
        let executable = std::env::current_exe().map_err(|error| LocalError::Io("find this executable", error))?;
        let mut command = Command::new(executable);
        command.args(["dev", "--dir"]).arg(dir.join("nodes")).args(["--nodes", &nodes.to_string()]).args([
            "--http-base",
            &base.to_string(),
            "--peer-base",
            &(base + nodes).to_string(),
            "--resp-base",
            &(base + 2 * nodes).to_string(),
        ]);
        if let Some(shards) = shards {
            command.args(["--shards", &shards.to_string()]);
        }
        let dev = ServerProcess::start("`cartwheel dev`".to_owned(), command, dir.join("dev.log"))?;
        let addresses = |base: u16| (1..=nodes).map(|number| format!("127.0.0.1:{}", base + number)).collect();
        let (addresses, resp_addresses) = (addresses(base), addresses(base + 2 * nodes));
        Ok(Self { dev, addresses, resp_addresses, pids: Vec::new() })
    }

    /// Waits until the nodes are ready.
    ///
    /// # Errors
    /// If they do not become ready.
    pub(in crate::commands::bench) async fn wait(&mut self) -> Result<(), LocalError> {
        let (endpoints, nodes) = (self.endpoints(), self.addresses.len());
        let mut found = Vec::new();
        let is_ready = async || {
            found = Servers::find(&endpoints).await.0.pids();
            found.len() == nodes
        };
        self.dev.wait_until("ready", is_ready).await?;
        self.pids = found;
        Ok(())
    }

    /// Creates a bucket with three replicas of each key, where a read waits for `r` of them and a write for two.
    ///
    /// # Errors
    /// If the nodes refuse its settings.
    pub(in crate::commands::bench) async fn set_bucket(
        &self,
        bucket: &str,
        conflict: &str,
        durability: Durability,
        r: u8,
    ) -> Result<(), LocalError> {
        let change = BucketChange {
            n: Some(N),
            r: Some(r),
            w: Some(W),
            conflict: Some(conflict.to_owned()),
            durability: Some(name(durability).to_owned()),
            ..BucketChange::default()
        };
        self.client()?.set_bucket(bucket, &change).await?;
        Ok(())
    }

    /// A client of all nodes.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub(in crate::commands::bench) fn client(&self) -> Result<Client, LocalError> {
        Ok(Client::new(&self.addresses)?)
    }

    pub(in crate::commands::bench) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The addresses for Redis clients.
    pub(in crate::commands::bench) fn resp_addresses(&self) -> &[String] {
        &self.resp_addresses
    }

    pub(in crate::commands::bench) fn endpoints(&self) -> Vec<Endpoint> {
        self.addresses.iter().filter_map(|address| servers::endpoint(address, &Dial::default()).ok()).collect()
    }

    /// The process ids of the nodes.
    pub(in crate::commands::bench) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Kills one node with SIGKILL. `cartwheel dev` does not restart it.
    pub(in crate::commands::bench) fn kill_one(&mut self) {
        let pid = self.pids.pop().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Stops the nodes.
    pub(in crate::commands::bench) async fn stop(self) {
        self.dev.stop().await;
    }
}

/// The name of a durability on the command line.
pub(in crate::commands::bench) const fn name(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "fsync",
        Durability::Os => "os",
    }
}
