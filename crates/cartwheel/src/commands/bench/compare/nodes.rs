//! The local cluster of Cartwheel.

use std::path::Path;
use std::time::Duration;

use cartwheel_client::{BucketChange, Client};
use tokio::process::Command;

use super::CompareError;
use super::args::CompareArgs;
use super::client::{CartwheelClient, StoreClient};
use super::process::{ServerProcess, free_ports};
use crate::cli::Durability;
use crate::commands::bench::servers::{self, Servers};

const NODES: u16 = 3;
/// The replicas of a key, and those that a write waits for.
const N: u8 = 3;
const W: u8 = 2;

/// Three nodes under `cartwheel dev`.
#[derive(Debug)]
pub(super) struct LocalCluster {
    dev: ServerProcess,
    addresses: Vec<String>,
    pids: Vec<u32>,
}

impl LocalCluster {
    /// Starts the nodes of a new cluster in `dir`, but does not wait for them.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(super) fn start(dir: &Path, shards: Option<u32>) -> Result<Self, CompareError> {
        // Node i has the ports base + i and base + NODES + i.
        let base = free_ports(2 * NODES + 1, 0)?;
        let executable = std::env::current_exe().map_err(|error| CompareError::Io("find this executable", error))?;
        let mut command = Command::new(executable);
        command.args(["dev", "--dir"]).arg(dir.join("nodes")).args(["--nodes", &NODES.to_string()]).args([
            "--http-base",
            &base.to_string(),
            "--peer-base",
            &(base + NODES).to_string(),
        ]);
        if let Some(shards) = shards {
            command.args(["--shards", &shards.to_string()]);
        }
        let dev = ServerProcess::start("`cartwheel dev`".to_owned(), command, dir.join("dev.log"))?;
        let addresses = (1..=NODES).map(|number| format!("127.0.0.1:{}", base + number)).collect();
        Ok(Self { dev, addresses, pids: Vec::new() })
    }

    /// Waits until the nodes are ready, and creates a bucket for each of the `durabilities`.
    ///
    /// # Errors
    /// If the nodes do not become ready, or the settings of a bucket are refused.
    pub(super) async fn set_up(&mut self, durabilities: &[Durability]) -> Result<(), CompareError> {
        let endpoints: Vec<_> = self.addresses.iter().filter_map(|address| servers::endpoint(address).ok()).collect();
        let mut found = Vec::new();
        self.dev
            .wait_until("ready", async || {
                found = Servers::find(&endpoints).await.0.pids();
                found.len() == usize::from(NODES)
            })
            .await?;
        self.pids = found;
        let client = Client::new(&self.addresses)?;
        for &durability in durabilities {
            let change = BucketChange {
                n: Some(N),
                r: Some(N - W + 1),
                w: Some(W),
                conflict: Some("lww".to_owned()),
                durability: Some(name(durability).to_owned()),
                ..BucketChange::default()
            };
            client.set_bucket(&bucket(durability), &change).await?;
        }
        Ok(())
    }

    pub(super) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// Clients of a bucket, spread over the nodes.
    pub(super) fn clients(&self, args: &CompareArgs, durability: Durability, r: Option<u8>) -> Vec<StoreClient> {
        let timeout = Duration::from_millis(args.timeout_ms);
        let addresses = self.addresses.iter().cycle().take(args.connections as usize);
        let client = |address: &String| CartwheelClient::new(address.clone(), bucket(durability), r, timeout);
        addresses.map(client).map(StoreClient::Cartwheel).collect()
    }

    /// Stops the nodes.
    pub(super) async fn stop(self) {
        self.dev.stop().await;
    }
}

/// The name of a durability on the command line.
pub(super) const fn name(durability: Durability) -> &'static str {
    match durability {
        Durability::Fsync => "fsync",
        Durability::Os => "os",
    }
}

fn bucket(durability: Durability) -> String {
    format!("compare-{}", name(durability))
}
