//! The process of one node.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::select_all;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{self, ChildStdin, Command};

use super::DevError;
use crate::terminal::output;
use cartwheel_server::config::Tuning;
use cartwheel_server::lifecycle::bootstrap::NodeDir;

/// The time in which a node must stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// The number of log lines shown if a node fails to start.
const TAIL_LINES: usize = 5;

/// A node's process, running or not.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    pid: u32,
    log: PathBuf,
    process: process::Child,
    /// Held open while the node runs. It is taken out of `process`, because `wait` closes the standard input left there.
    _stdin: Option<ChildStdin>,
    has_exited: bool,
}

impl Child {
    /// Starts `cartwheel serve` for a node, with more flags that set its addresses.
    pub(super) fn start(node: &NodeDir, tuning: &Tuning, address_flags: &[String]) -> io::Result<Self> {
        let log = node.dir.join("log");
        let log_file = File::options().create(true).append(true).open(&log)?;
        let mut serve = Command::new(std::env::current_exe()?);
        // These variables are meant for a single node and cannot apply to all.
        for variable in ["CONFIG", "HTTP_LISTEN", "PEER_LISTEN", "ADMIN_LISTEN", "BOOTSTRAP", "JOIN", "SEED"] {
            serve.env_remove(format!("CARTWHEEL_{variable}"));
        }
        let mut process = serve
            .args(["serve", "--stop-with-stdin", "--dir"])
            .arg(&node.dir)
            .args(tuning.flags())
            .args(address_flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log_file)
            // A process group of its own keeps the terminal's Ctrl-C from the child: this process stops its children itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (pid, stdin) = (process.id().unwrap_or_default(), process.stdin.take());
        Ok(Self { name: node.member.name.clone(), pid, log, process, _stdin: stdin, has_exited: false })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// The error for a node that exited before it was ready; `how` says how.
    pub(super) fn unready(&self, how: String) -> DevError {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        DevError::Unready { name: self.name.clone(), how, log: self.log.clone(), tail }
    }

    async fn wait_for_exit(&mut self) -> String {
        if self.has_exited {
            std::future::pending::<()>().await;
        }
        let status = self.process.wait().await;
        self.has_exited = true;
        format!("(PID {}) {}", self.pid, status.map_or_else(|error| format!("cannot be waited for: {error}"), describe))
    }

    async fn stop(mut self) {
        if self.has_exited {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_WITHIN, self.process.wait()).await.is_err() {
            output::say(format_args!("killing {}, which did not stop within {} s", self.name, STOP_WITHIN.as_secs()));
            let _ = self.process.kill().await;
        }
    }
}

/// Waits until another of the `children` exits. Returns its index and how it exited.
pub(super) async fn next_exit(children: &mut [Child]) -> (usize, String) {
    let exits = children.iter_mut().map(|child| Box::pin(child.wait_for_exit()));
    let (how, at, _) = select_all(exits).await;
    (at, how)
}

/// Stops all `children` at the same time.
pub(super) async fn stop_all(children: Vec<Child>) {
    futures_util::future::join_all(children.into_iter().map(Child::stop)).await;
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "exited".to_owned(),
    }
}
