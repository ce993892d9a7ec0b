//! One node's process.

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

/// How long a node may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How much of a log is shown when its node would not start.
const TAIL_LINES: usize = 5;

/// A node's process, alive or dead.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    pid: u32,
    log: PathBuf,
    process: process::Child,
    /// Held open for as long as the node may live. It is not left in `process`, which closes it before it waits.
    _stdin: Option<ChildStdin>,
    dead: bool,
}

impl Child {
    /// Starts `cartwheel serve` for a node, which is told of its `moves`.
    pub(super) fn start(node: &NodeDir, tuning: &Tuning, moves: &[String]) -> io::Result<Self> {
        let log = node.dir.join("log");
        let log_file = File::options().create(true).append(true).open(&log)?;
        let mut serve = Command::new(std::env::current_exe()?);
        // What is one node's alone cannot be meant for all.
        for variable in ["CONFIG", "HTTP_LISTEN", "PEER_LISTEN", "ADMIN_LISTEN", "BOOTSTRAP", "JOIN", "SEED"] {
            serve.env_remove(format!("CARTWHEEL_{variable}"));
        }
        let mut process = serve
            .args(["serve", "--stop-with-stdin", "--dir"])
            .arg(&node.dir)
            .args(tuning.flags())
            .args(moves)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log_file)
            // A terminal's Ctrl-C goes to this process alone, which then stops its children in its own way.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (pid, stdin) = (process.id().unwrap_or_default(), process.stdin.take());
        Ok(Self { name: node.member.name.clone(), pid, log, process, _stdin: stdin, dead: false })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// The error that this node died, by `how`, before it was ready.
    pub(super) fn unready(&self, how: String) -> DevError {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        DevError::Unready { name: self.name.clone(), how, log: self.log.clone(), tail }
    }

    async fn death(&mut self) -> String {
        if self.dead {
            std::future::pending::<()>().await;
        }
        let status = self.process.wait().await;
        self.dead = true;
        format!("(PID {}) {}", self.pid, status.map_or_else(|error| format!("was lost: {error}"), how))
    }

    async fn stop(mut self) {
        if self.dead {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_WITHIN, self.process.wait()).await.is_err() {
            output::say(format_args!("{} did not stop within {} s and is killed", self.name, STOP_WITHIN.as_secs()));
            let _ = self.process.kill().await;
        }
    }
}

/// Waits until one more of `children` dies: which one, and how.
pub(super) async fn first_death(children: &mut [Child]) -> (usize, String) {
    let deaths = children.iter_mut().map(|child| Box::pin(child.death()));
    let (how, at, _) = select_all(deaths).await;
    (at, how)
}

/// Stops all of `children` at the same time.
pub(super) async fn stop_all(children: Vec<Child>) {
    futures_util::future::join_all(children.into_iter().map(Child::stop)).await;
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
