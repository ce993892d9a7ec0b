//! One node's process.

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

/// How long a process that was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How long one that was asked to stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// More than one, so that requests have to find theirs.
pub(crate) const SHARDS: NonZeroU32 = NonZeroU32::new(2).unwrap();
/// How much of its log is shown.
const TAIL_LINES: usize = 12;

/// A node, running or not. Its process is gone when this is dropped.
#[derive(Debug)]
pub struct Node {
    /// What it is called.
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
    /// Where the cluster is told that it is.
    pub site: Site,
    /// In which zone that is, counted from 0.
    pub zone: usize,
    /// Where it runs.
    pub host: Host,
    /// What it is to the cluster.
    pub standing: Standing,
    /// Where the peers are that let it in; none of one that founded the cluster.
    pub seeds: Vec<String>,
    /// Where it logs to.
    pub log: PathBuf,
    /// The file whose content shifts its clock.
    pub clock: PathBuf,
    /// Its process.
    pub process: Option<Running>,
}

/// What a node is to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// No member yet.
    Outside,
    /// A member.
    Member,
    /// A member that is to hand over what it holds, and to end then.
    Leaving,
    /// Dead for good, or gone.
    Gone,
}

/// A node's process.
#[derive(Debug)]
pub struct Running {
    process: Child,
    pid: Pid,
    /// The node stops when it is closed, so not even a run that is killed leaves nodes behind.
    _stdin: Option<ChildStdin>,
}

impl Node {
    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.site.http_addr)
    }

    /// Whether it holds data, and serves clients unless something keeps it from that.
    pub fn is_in(&self) -> bool {
        matches!(self.standing, Standing::Member | Standing::Leaving)
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|running| running.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Starts `BIN serve` on the node's host.
    ///
    /// # Errors
    /// If it runs already, or cannot be started.
    pub fn start(&mut self, network: &Network, bin: &Path) -> Result<(), FaultsError> {
        if self.process.is_some() {
            return Err(self.failed("is to be started and runs already"));
        }
        let failed = || FaultsError::system(format!("start {}", self.name));
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed())?;
        // `ip netns exec` becomes the node: the process stays the same.
        let mut serve = Command::new("ip");
        for variable in ["CARTWHEEL_CONFIG", "CARTWHEEL_HTTP_LISTEN", "CARTWHEEL_PEER_LISTEN"] {
            serve.env_remove(variable);
        }
        serve.env(cartwheel_server::TEST_CLOCK_OFFSET_FILE, &self.clock);
        serve.args(["netns", "exec", &network.namespace(self.host)]).arg(bin);
        // All others of the network are this cluster's, and nobody else can connect.
        serve.args(["serve", "--stop-with-stdin", "--insecure", "--dir"]).arg(&self.dir);
        if !self.seeds.is_empty() {
            let Site { zone, host, peer_addr, http_addr, .. } = &self.site;
            let said = [("--name", &self.name), ("--zone", zone), ("--host", host)];
            let listens = [("--peer-listen", peer_addr), ("--http-listen", http_addr)];
            let seeds = self.seeds.iter().map(|seed| ("--seed", seed));
            said.into_iter().chain(listens).chain(seeds).for_each(|(flag, value)| {
                serve.args([flag, value]);
            });
            serve.args(["--shards", &SHARDS.to_string()]);
        }
        serve.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        // A terminal's Ctrl-C is for the run alone.
        let mut process = serve.process_group(0).kill_on_drop(true).spawn().map_err(failed())?;
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let pid = pid.ok_or_else(|| self.failed("ended at once"))?;
        let stdin = process.stdin.take();
        self.process = Some(Running { process, pid, _stdin: stdin });
        Ok(())
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Result<(), FaultsError> {
        self.end(Signal::KILL, GONE_WITHIN).await
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// If it does not run, or does not stop.
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

    /// Sends its process a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<(), FaultsError> {
        let Some(running) = &self.process else { return Err(self.failed("does not run")) };
        kill_process(running.pid, signal).map_err(FaultsError::system(format!("send {signal:?} to {}", self.name)))
    }

    /// Whether it ends by itself and in order within this time. If it does not end, it is killed.
    pub async fn ended_by_itself(&mut self, within: Duration) -> bool {
        let Some(mut running) = self.process.take() else { return true };
        let ended = tokio::time::timeout(within, running.process.wait()).await;
        if ended.is_err() {
            // It is gone once this has waited for it, which dropping it would not.
            let _ = running.process.kill().await;
        }
        matches!(ended, Ok(Ok(status)) if status.success())
    }

    /// Whether it ended by itself.
    pub fn has_died(&mut self) -> bool {
        self.process.as_mut().is_some_and(|running| !matches!(running.process.try_wait(), Ok(None)))
    }

    /// It ended by itself, and there is nothing to be killed.
    pub fn has_been_reaped(&mut self) -> bool {
        let has_died = self.has_died();
        if has_died {
            self.process = None;
        }
        has_died
    }

    /// The error that it did something that it should not.
    pub fn failed(&self, what: &str) -> FaultsError {
        FaultsError::Node {
            name: self.name.clone(),
            what: what.to_owned(),
            log: self.log.clone(),
            tail: self.log_tail(),
        }
    }

    /// The end of its log.
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
        // Its data can be removed only when it is gone.
        let begun = Instant::now();
        while matches!(running.process.try_wait(), Ok(None)) && begun.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
