//! A cluster for the example, made by `cartwheel dev` in a temporary directory. The example can kill and restart its nodes.

use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cartwheel_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long nodes may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes. They end with this process, however it ends.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    dev: Child,
    nodes: Vec<Node>,
    /// The processes of restarted nodes.
    restarted: Vec<Child>,
}

/// A node as `cartwheel dev` lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The address of its HTTP server.
    pub endpoint: String,
    /// The id of its first process.
    pub pid: i32,
}

/// The failure of a process, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ClusterError(String);

fn failed(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> ClusterError {
    move |error| ClusterError(format!("{what}: {error}"))
}

impl Cluster {
    /// Starts `BIN dev` on free ports and waits until all nodes are ready.
    ///
    /// # Errors
    /// If the binary does not exist, or the nodes do not start.
    pub async fn start(bin: &Path) -> Result<Self, ClusterError> {
        let dir = tempfile::tempdir().map_err(failed("cannot create a temporary directory"))?;
        let (http_base, peer_base) = free_bases()?;
        let mut dev = Command::new(bin)
            .args(["dev", "--http-base", &http_base.to_string(), "--peer-base", &peer_base.to_string(), "--dir"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed(format!("cannot start {} (build it with `cargo build --release`)", bin.display())))?;
        let stdout = dev.stdout.take().ok_or_else(|| ClusterError("cannot read the nodes' output".to_owned()))?;
        let mut lines = BufReader::new(stdout).lines();
        let nodes = tokio::time::timeout(PATIENCE, read_table(&mut lines));
        let nodes = nodes
            .await
            .map_err(|_| ClusterError(format!("the nodes were not ready within {} s", PATIENCE.as_secs())))??;
        // Read the rest of its output, so that a full pipe does not block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { bin: bin.to_owned(), dir, dev, nodes, restarted: Vec::new() })
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.endpoint.clone()).collect()
    }

    /// Kills a node's first process with SIGKILL.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn kill(&self, node: &Node) -> Result<(), ClusterError> {
        let pid = Pid::from_raw(node.pid).ok_or_else(|| ClusterError(format!("{} has no process", node.name)))?;
        kill_process(pid, Signal::KILL).map_err(|error| failed(format!("cannot kill {}", node.name))(error.into()))
    }

    /// Restarts a node on its existing data, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer in time.
    pub async fn restart(&mut self, node: &Node) -> Result<(), ClusterError> {
        let mut serve = Command::new(&self.bin);
        serve.args(["serve", "--stop-with-stdin", "--dir"]).arg(self.dir.path().join("data").join(&node.name));
        serve.stdin(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        self.restarted.push(serve.spawn().map_err(failed(format!("cannot start {}", node.name)))?);
        let client = Client::new([&node.endpoint]).map_err(|error| ClusterError(error.to_string()))?.without_routing();
        let restarted = async {
            while client.get("any", "key").await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, restarted).await;
        in_time.map_err(|_| {
            ClusterError(format!("{} did not answer within {} s of its restart", node.name, PATIENCE.as_secs()))
        })
    }

    /// Stops all nodes with SIGTERM, and removes their data.
    pub async fn stop(mut self) {
        for child in self.restarted.iter_mut().chain([&mut self.dev]) {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for child in self.restarted.iter_mut().chain([&mut self.dev]) {
            let _ = tokio::time::timeout(PATIENCE, child.wait()).await;
        }
    }
}

/// Reads the output of `cartwheel dev` until all nodes are ready.
async fn read_table(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Vec<Node>, ClusterError> {
    let (mut header, mut nodes, mut output) = (Vec::new(), Vec::new(), String::new());
    while let Some(line) = lines.next_line().await.map_err(failed("cannot read the nodes' output"))? {
        if line.starts_with("NODE ") {
            header = line.split_whitespace().map(str::to_owned).collect();
        } else if line.starts_with("node-") {
            nodes.extend(parse_node(&header, &line));
        } else if line.contains("nodes are ready") && !nodes.is_empty() {
            return Ok(nodes);
        }
        output.push_str(&line);
        output.push('\n');
    }
    Err(ClusterError(format!("the nodes did not start:\n{output}")))
}

fn parse_node(header: &[String], line: &str) -> Option<Node> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let field = |name: &str| fields.get(header.iter().position(|column| column == name)?).copied();
    Some(Node {
        name: field("NODE")?.to_owned(),
        endpoint: field("HTTP")?.to_owned(),
        pid: field("PID")?.parse().ok()?,
    })
}

/// Two base ports from each of which the next three ports are free, below the range that the system assigns itself.
fn free_bases() -> Result<(u16, u16), ClusterError> {
    let free = |base: u16| (1..=3).all(|number| TcpListener::bind(("127.0.0.1", base + number)).is_ok());
    for _ in 0..1_000 {
        let random = getrandom::u32()
            .map_err(|error| ClusterError(format!("cannot read random bytes from the operating system: {error}")))?;
        let base = 12_000 + (random % 18_000) as u16;
        if free(base) && free(base + 4) {
            return Ok((base, base + 4));
        }
    }
    Err(ClusterError("no free ports between 12000 and 30000: end programs that listen there".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_by_the_names_of_its_columns() {
        let header: Vec<String> = "NODE HTTP PEERS PID LOG".split(' ').map(str::to_owned).collect();
        let node = parse_node(&header, "node-1   http://127.0.0.1:1  127.0.0.1:2  77   /tmp/log").unwrap();
        assert_eq!((&*node.name, &*node.endpoint, node.pid), ("node-1", "http://127.0.0.1:1", 77));
        assert_eq!(parse_node(&header, "node-1 was killed"), None);
    }
}
