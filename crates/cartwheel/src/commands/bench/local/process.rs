//! Processes of servers, their ports and their logs.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::LocalError;

/// The time in which a server must become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
const CHECK_EVERY: Duration = Duration::from_millis(50);
/// The time in which a process must stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// The number of log lines shown if a server fails.
const TAIL_LINES: usize = 5;
/// The ports that are tried, below those that the operating system assigns to clients.
const PORTS: std::ops::Range<u16> = 12_000..21_900;
const PORT_TRIES: u32 = 200;

/// A server process. It is killed when it is dropped.
#[derive(Debug)]
pub(in crate::commands::bench) struct ServerProcess {
    name: String,
    child: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts a process that writes its output to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(in crate::commands::bench) fn start(
        name: String,
        mut command: Command,
        log: PathBuf,
    ) -> Result<Self, LocalError> {
        let mut start = || {
            let output = File::options().create(true).append(true).open(&log)?;
            // A process group of its own keeps the terminal's Ctrl-C from the process: this process stops it itself.
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0).kill_on_drop(true);
            command.spawn()
        };
        match start() {
            Ok(child) => Ok(Self { name, child, log }),
            Err(source) => Err(LocalError::Start { name, source }),
        }
    }

    /// The process id; none after the process has ended.
    pub(in crate::commands::bench) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until `is_ready` returns true.
    ///
    /// # Errors
    /// If the process ends, or the time is up.
    pub(in crate::commands::bench) async fn wait_until(
        &mut self,
        state: &'static str,
        mut is_ready: impl AsyncFnMut() -> bool,
    ) -> Result<(), LocalError> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(LocalError::Ended { name: self.name.clone(), status, tail: self.tail() });
            }
            if tokio::time::timeout_at(until, is_ready()).await.unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() >= until {
                let (name, seconds) = (self.name.clone(), READY_WITHIN.as_secs());
                return Err(LocalError::NotReady { name, state, seconds, tail: self.tail() });
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// The last lines of the output.
    fn tail(&self) -> String {
        let output = fs::read(&self.log).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Asks the process to stop, waits until it has ended, and kills it if that takes too long.
    pub(in crate::commands::bench) async fn stop(mut self) {
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
            if tokio::time::timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
                self.kill().await;
            }
        }
    }

    /// Kills the process, and waits until it has ended.
    pub(in crate::commands::bench) async fn kill(mut self) {
        let _ = self.child.kill().await;
    }
}

/// The first of `count` successive free ports. The ports at each `offset` above them are free too.
///
/// # Errors
/// If none are found.
pub(in crate::commands::bench) fn free_ports(count: u16, offset: u16) -> Result<u16, LocalError> {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for _ in 0..PORT_TRIES {
        let first = fastrand::u16(PORTS);
        if (first..first + count).all(|port| is_free(port) && is_free(port + offset)) {
            return Ok(first);
        }
    }
    Err(LocalError::NoPorts)
}
