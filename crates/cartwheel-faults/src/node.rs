//! The process of one node.

use std::fs::File;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cartwheel_server::lifecycle::bootstrap::Site;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::FaultsError;
use crate::network::{Host, Network};

/// How long a killed process may take to end.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How long a process may take to end after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// More than one, so that requests are routed between shards.
pub(crate) const SHARDS: NonZeroU32 = NonZeroU32::new(2).unwrap();
/// The number of lines of a log that are shown.
const TAIL_LINES: usize = 12;

/// A node, running or not. Dropping it kills its process.
#[derive(Debug)]
pub struct Node {
    /// Its name, such as node-1.
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
    /// The zone, host and addresses that the cluster records for it.
    pub site: Site,
    /// The zone, counted from 0.
    pub zone: usize,
    /// The host of the virtual network that it runs on.
    pub host: Host,
    /// Its relation to the cluster.
    pub membership: Membership,
    /// The peers that it joins through; empty for a node that bootstraps the cluster.
    pub seeds: Vec<String>,
    /// The file of its log.
    pub log: PathBuf,
    /// The file with the offset of its clock.
    pub clock: PathBuf,
    /// The process, if it runs.
    pub process: Option<Running>,
}

/// A node's relation to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// Not a member yet.
    Outside,
    /// A member.
    Member,
    /// A removed member that hands over its data and then ends.
    Leaving,
    /// No member any more, or dead for good.
    Gone,
}

/// A running process of a node.
#[derive(Debug)]
pub struct Running {
    process: Child,
    pid: Pid,
    /// The node stops when this pipe is closed. So no node outlives a run, even one that is killed.
    _stdin: Option<ChildStdin>,
}

impl Node {
    /// The node's address for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.site.http_addr)
    }

    /// Whether it serves clients, unless a fault prevents it. A leaving member does.
    pub fn is_serving(&self) -> bool {
        matches!(self.membership, Membership::Member | Membership::Leaving)
    }

    /// The id of its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|running| running.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Starts `BIN serve` on the node's host.
    ///
    /// # Errors
    /// If it is already running, or cannot be started.
    pub fn start(&mut self, network: &Network, bin: &Path) -> Result<(), FaultsError> {
        if self.process.is_some() {
            return Err(self.failed("cannot be started: it is already running"));
        }
        let failed = || FaultsError::system(format!("start {}", self.name));
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed())?;
        // `ip netns exec` replaces itself with the node, so the process id stays the same.
        let mut serve = Command::new("ip");
        for variable in ["CARTWHEEL_CONFIG", "CARTWHEEL_HTTP_LISTEN", "CARTWHEEL_PEER_LISTEN"] {
            serve.env_remove(variable);
        }
        serve.env(cartwheel_server::TEST_CLOCK_OFFSET_FILE, &self.clock);
        serve.args(["netns", "exec", &network.namespace(self.host)]).arg(bin);
        // Only this cluster's nodes and clients are in this network, so the ports need no protection.
        serve.args(["serve", "--stop-with-stdin", "--insecure", "--dir"]).arg(&self.dir);
        if !self.seeds.is_empty() {
            let Site { zone, host, peer_addr, http_addr, .. } = &self.site;
            let identity = [("--name", &self.name), ("--zone", zone), ("--host", host)];
            let listens = [("--peer-listen", peer_addr), ("--http-listen", http_addr)];
            let seeds = self.seeds.iter().map(|seed| ("--seed", seed));
            identity.into_iter().chain(listens).chain(seeds).for_each(|(flag, value)| {
                serve.args([flag, value]);
            });
            serve.args(["--shards", &SHARDS.to_string()]);
        }
        serve.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        // Keeps a terminal's Ctrl-C from the node; the run itself handles it.
        let mut process = serve.process_group(0).kill_on_drop(true).spawn().map_err(failed())?;
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let pid = pid.ok_or_else(|| self.failed("ended immediately"))?;
        let stdin = process.stdin.take();
        self.process = Some(Running { process, pid, _stdin: stdin });
        Ok(())
    }

    /// Kills it with SIGKILL, and waits until it has ended.
    ///
    /// # Errors
    /// If it is not running.
    pub async fn kill(&mut self) -> Result<(), FaultsError> {
        self.end(Signal::KILL, GONE_WITHIN).await
    }

    /// Stops it with SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// If it is not running, or does not end in time.
    pub async fn stop(&mut self) -> Result<(), FaultsError> {
        self.end(Signal::TERM, STOP_WITHIN).await
    }

    async fn end(&mut self, signal: Signal, within: Duration) -> Result<(), FaultsError> {
        self.signal(signal)?;
        let Some(mut running) = self.process.take() else { return Ok(()) };
        match tokio::time::timeout(within, running.process.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(FaultsError::System { what: format!("wait for {}", self.name), source }),
            Err(_) => Err(self.failed(&format!("did not end within {} s of {signal:?}", within.as_secs()))),
        }
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// If it is not running.
    pub fn signal(&self, signal: Signal) -> Result<(), FaultsError> {
        let Some(running) = &self.process else { return Err(self.failed("is not running")) };
        kill_process(running.pid, signal).map_err(FaultsError::system(format!("send {signal:?} to {}", self.name)))
    }

    /// Whether it exits with success within this time. If it does not exit, it is killed.
    pub async fn ended_by_itself(&mut self, within: Duration) -> bool {
        let Some(mut running) = self.process.take() else { return true };
        let ended = tokio::time::timeout(within, running.process.wait()).await;
        if ended.is_err() {
            // Wait until the process has ended; dropping it would not.
            let _ = running.process.kill().await;
        }
        matches!(ended, Ok(Ok(status)) if status.success())
    }

    /// Whether its process has ended without being killed or stopped.
    pub fn has_died(&mut self) -> bool {
        self.process.as_mut().is_some_and(|running| !matches!(running.process.try_wait(), Ok(None)))
    }

    /// Like [`Self::has_died`], and then drops the process, since there is none to kill.
    pub fn has_been_reaped(&mut self) -> bool {
        let has_died = self.has_died();
        if has_died {
            self.process = None;
        }
        has_died
    }

    /// The error that the node is not in the state that a scenario needs, with the end of its log.
    pub fn failed(&self, what: &str) -> FaultsError {
        FaultsError::Node {
            name: self.name.clone(),
            what: what.to_owned(),
            log: self.log.clone(),
            tail: self.log_tail(),
        }
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(mut running) = self.process.take() else { return };
        let _ = running.process.start_kill();
        // Its data can be removed only after it has ended.
        let begun = Instant::now();
        while matches!(running.process.try_wait(), Ok(None)) && begun.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
