//! One node's process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cartwheel::founding::NodeDir;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::FaultsError;
use crate::network::{Host, Network};

/// How long a process that was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How long one that was asked to stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How much of its log is shown.
const TAIL_LINES: usize = 12;

/// A node, running or not. Its process is gone when this is dropped.
#[derive(Debug)]
pub struct Node {
    /// Its data directory, and who it is.
    pub at: NodeDir,
    /// Where it runs.
    pub host: Host,
    log: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Child,
    pid: Pid,
    /// The node stops when it is closed, so not even a run that is killed leaves nodes behind.
    _stdin: Option<ChildStdin>,
}

impl Node {
    /// A node that does not run yet, and logs to `log`.
    pub const fn new(at: NodeDir, host: Host, log: PathBuf) -> Self {
        Self { at, host, log, running: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.at.member.name
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.at.member.http_addr)
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Starts `BIN serve` on the node's host.
    ///
    /// # Errors
    /// If it runs already, or cannot be started.
    pub fn start(&mut self, network: &Network, bin: &Path) -> Result<(), FaultsError> {
        if self.running.is_some() {
            return Err(self.failed("is to be started and runs already"));
        }
        let failed = || FaultsError::system(format!("start {}", self.at.member.name));
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed())?;
        // `ip netns exec` becomes the node: the process stays the same.
        let mut serve = Command::new("ip");
        for variable in ["CARTWHEEL_CONFIG", "CARTWHEEL_HTTP_LISTEN", "CARTWHEEL_PEER_LISTEN"] {
            serve.env_remove(variable);
        }
        serve.args(["netns", "exec", &network.namespace(self.host)]).arg(bin);
        // All others of the network are this cluster's, and nobody else can connect.
        serve.args(["serve", "--stop-with-stdin", "--insecure", "--dir"]).arg(&self.at.dir);
        serve.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        // A terminal's Ctrl-C is for the run alone.
        let mut process = serve.process_group(0).kill_on_drop(true).spawn().map_err(failed())?;
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let pid = pid.ok_or_else(|| self.failed("ended at once"))?;
        let stdin = process.stdin.take();
        self.running = Some(Running { process, pid, _stdin: stdin });
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
        let Some(mut running) = self.running.take() else { return Ok(()) };
        match tokio::time::timeout(within, running.process.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(FaultsError::System { what: format!("wait for {}", self.name()), source }),
            Err(_) => Err(self.failed(&format!("did not end within {} s of {signal:?}", within.as_secs()))),
        }
    }

    /// Sends its process a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<(), FaultsError> {
        let Some(running) = &self.running else { return Err(self.failed("does not run")) };
        kill_process(running.pid, signal).map_err(FaultsError::system(format!("send {signal:?} to {}", self.name())))
    }

    /// Whether it ended by itself.
    pub fn has_died(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| !matches!(running.process.try_wait(), Ok(None)))
    }

    /// The error that it did something that it should not.
    pub fn failed(&self, what: &str) -> FaultsError {
        FaultsError::Node {
            name: self.name().to_owned(),
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
        let Some(mut running) = self.running.take() else { return };
        let _ = running.process.start_kill();
        // Its data can be removed only when it is gone.
        let begun = Instant::now();
        while matches!(running.process.try_wait(), Ok(None)) && begun.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
