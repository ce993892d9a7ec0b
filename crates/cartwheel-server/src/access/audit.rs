//! The audit log: what administrators did, one JSON object a line.

use std::fs::DirBuilder;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tracing::warn;
use tracing_appender::rolling::{RollingFileAppender, Rotation};

use super::AccessMetrics;
use crate::log::RateLimit;

/// The directory of the audit log in the data directory.
const DIR: &str = "audit";
/// How many days it is kept.
const DAYS_KEPT: usize = 90;

/// An administrative act.
#[derive(Debug)]
pub struct AuditEvent<'a> {
    /// The user, if clients have to be one.
    pub user: Option<&'a str>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The API: `http` or `redis`.
    pub api: &'static str,
    /// What was asked: a method and a path, or a command.
    pub act: &'a str,
    /// `done`, or the code of the error.
    pub outcome: &'a str,
    /// More about it, without secrets.
    pub detail: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    user: Option<&'a str>,
    client: Option<IpAddr>,
    api: &'a str,
    act: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<serde_json::Value>,
}

/// The audit log of a node. Clones share it.
///
/// It has a file a day. A line that cannot be written, for example because the disk is full, is counted and does not hold the act up.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: String,
    files: Option<Mutex<Files>>,
    unwritten: Counter,
    failures: RateLimit,
}

#[derive(Debug)]
struct Files {
    appender: RollingFileAppender,
    /// A line was written in part.
    is_torn: bool,
}

impl Audit {
    /// Opens the audit log of a node in its data directory.
    ///
    /// # Errors
    /// If a file cannot be made there.
    pub fn open(node: &str, data_dir: &Path, metrics: &AccessMetrics) -> Result<Self, std::io::Error> {
        let dir = data_dir.join(DIR);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let builder = RollingFileAppender::builder().rotation(Rotation::DAILY).max_log_files(DAYS_KEPT);
        let appender = builder.filename_prefix("audit").filename_suffix("jsonl").build(dir);
        let appender = appender.map_err(|error| std::io::Error::other(error.to_string()))?;
        let files = Some(Mutex::new(Files { appender, is_torn: false }));
        Ok(Self::with(node, files, metrics))
    }

    /// One that keeps nothing.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::with("node-1", None, &AccessMetrics::default())
    }

    fn with(node: &str, files: Option<Mutex<Files>>, metrics: &AccessMetrics) -> Self {
        let failures = RateLimit::new(Duration::from_secs(10));
        Self(Arc::new(Inner { node: node.to_owned(), files, unwritten: metrics.unwritten.clone(), failures }))
    }

    /// Records an act.
    pub fn record(&self, event: AuditEvent<'_>) {
        let Inner { node, files, unwritten, failures } = &*self.0;
        let Some(files) = files else { return };
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let AuditEvent { user, client, api, act, outcome, detail } = event;
        let line = serde_json::to_vec(&Line { time, node, user, client, api, act, outcome, detail });
        let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
        let written = line.map_err(std::io::Error::from).and_then(|line| files.append(line));
        if let Err(error) = written {
            unwritten.inc();
            if let Some(lines) = failures.count(1) {
                warn!(%error, lines, "cannot write the audit log: free some space, or make its directory writeable");
            }
        }
    }
}

impl Files {
    fn append(&mut self, mut line: Vec<u8>) -> std::io::Result<()> {
        if self.is_torn {
            line.insert(0, b'\n');
        }
        line.push(b'\n');
        let written = self.appender.write(&line);
        self.is_torn |= !matches!(written, Ok(0) | Err(_));
        match written? {
            all if all == line.len() => {
                self.is_torn = false;
                Ok(())
            }
            _ => Err(std::io::ErrorKind::WriteZero.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_act_is_a_line_of_json() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open("node-1", dir.path(), &AccessMetrics::default()).unwrap();
        let event = |act| AuditEvent {
            user: Some("ann"),
            client: Some(IpAddr::from([192, 0, 2, 1])),
            api: "http",
            act,
            outcome: "done",
            detail: Some(serde_json::json!({"roles": ["read:*"]})),
        };
        audit.record(event("PUT /v1/users/bob"));
        audit.record(event("a \"quoted\"\nact"));
        let file = std::fs::read_dir(dir.path().join(DIR)).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["user"], &lines[0]["client"]), (&"ann".into(), &"192.0.2.1".into()));
        assert_eq!(lines[1]["act"], "a \"quoted\"\nact");
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("audit.") && name.ends_with(".jsonl"), "{name}");
    }
}
