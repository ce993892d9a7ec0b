//! Commands on the node.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::resp::error::{CommandError, NOT_AN_INTEGER};
use crate::resp::glob::matches;
use crate::resp::parser::{Command, integer};
use crate::resp::reply::Reply;
use crate::resp::session::{DATABASES, Session};

/// The version of Redis whose replies these are: clients choose their commands by it.
pub(super) const REDIS_VERSION: &str = "7.0.15";

pub(super) fn time(_: &mut Session, _: &Command) -> Result<Reply, CommandError> {
    let now = since_1970();
    Ok(Reply::Array(vec![Reply::text(now.as_secs().to_string()), Reply::text(now.subsec_micros().to_string())]))
}

pub(super) fn lastsave(_: &mut Session, _: &Command) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(since_1970().as_secs() as i64))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A write is acknowledged only when W nodes have stored it, so there is nothing to wait for. As in Redis, the node itself does not count.
pub(super) fn wait(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    integer(command.get(1)).ok_or(NOT_AN_INTEGER)?;
    let timeout = integer(command.get(2));
    let timeout = timeout.ok_or_else(|| CommandError::other("timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CommandError::other("timeout is negative"));
    }
    Ok(Reply::Integer(i64::from(session.db.stored.load(Ordering::Relaxed).saturating_sub(1))))
}

pub(super) fn function(_: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    match (&command.get(1).to_ascii_uppercase()[..], command.len()) {
        (b"FLUSH", 2) => Ok(Reply::OK),
        (b"FLUSH", 3) if is_sync_or_async(command.get(2)) => Ok(Reply::OK),
        (b"FLUSH", 3) => Err(CommandError::other("FUNCTION FLUSH only supports SYNC|ASYNC option")),
        (b"LIST", 2..) => Ok(Reply::Array(Vec::new())),
        (b"HELP", 2) => Ok(Reply::texts([
            "FUNCTION <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "FLUSH [ASYNC|SYNC]",
            "    Do nothing: there are no functions.",
            "LIST",
            "    Return an empty list.",
            "HELP",
            "    Print this help.",
        ])),
        _ => Err(super::unknown_subcommand(command, "FUNCTION")),
    }
}

pub(super) fn is_sync_or_async(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"SYNC") || option.eq_ignore_ascii_case(b"ASYNC")
}

pub(super) fn config(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    match (&command.get(1).to_ascii_uppercase()[..], command.len()) {
        (b"GET", 3..) => {
            let settings = settings(session);
            let is_asked =
                |name: &str| command.from(2).any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_bytes()));
            let asked = settings.into_iter().filter(|(name, _)| is_asked(name));
            Ok(Reply::Map(asked.map(|(name, value)| (Reply::text(name), Reply::text(value))).collect()))
        }
        (b"SET", 4..) => Err(CommandError::other(
            "CONFIG SET is not supported: settings of a node are in its configuration file, those of a bucket are set with `cartwheel bucket set`",
        )),
        (b"RESETSTAT" | b"REWRITE", 2) => Ok(Reply::OK),
        (b"HELP", 2) => Ok(Reply::texts([
            "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "RESETSTAT",
            "    Do nothing: see the node's metrics.",
            "HELP",
            "    Print this help.",
        ])),
        _ => Err(super::unknown_subcommand(command, "CONFIG")),
    }
}

/// The node's settings under Redis's names.
fn settings(session: &Session) -> Vec<(&'static str, String)> {
    let api = session.api();
    let syncs = match api.backend().durability {
        crate::config::Durability::Fsync => "always",
        crate::config::Durability::Os => "everysec",
    };
    vec![
        ("appendfsync", syncs.to_owned()),
        ("appendonly", "yes".to_owned()),
        ("cluster-enabled", "no".to_owned()),
        ("databases", DATABASES.to_string()),
        ("maxclients", api.connections_max().to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("proto-max-bulk-len", crate::resp::VALUE_BYTES_MAX.to_string()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ]
}

/// The sections of `INFO`, in its order.
const SECTIONS: [&str; 8] = ["server", "clients", "memory", "persistence", "stats", "replication", "cpu", "cluster"];

pub(super) fn info(session: &mut Session, command: &Command) -> Result<Reply, CommandError> {
    let asked: Vec<String> =
        command.from(1).map(|section| String::from_utf8_lossy(section).to_ascii_lowercase()).collect();
    let all = asked.is_empty() || asked.iter().any(|section| ["all", "default", "everything"].contains(&&section[..]));
    let mut text = String::new();
    for section in SECTIONS.into_iter().chain(["keyspace"]) {
        if all || asked.iter().any(|asked| asked == section) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            describe(session, section, &mut text);
        }
    }
    Ok(Reply::Verbatim(text))
}

fn describe(session: &Session, section: &str, text: &mut String) {
    let api = session.api();
    let title = section[..1].to_ascii_uppercase() + &section[1..];
    let title = if section == "cpu" { "CPU".to_owned() } else { title };
    let up = api.opened().elapsed().unwrap_or_default().as_secs();
    let fields: Vec<(&str, String)> = match section {
        "server" => vec![
            ("redis_version", REDIS_VERSION.to_owned()),
            ("redis_mode", session.mode().to_owned()),
            ("cartwheel_version", crate::VERSION.to_owned()),
            ("cartwheel_node", api.backend().local.name.clone()),
            ("cartwheel_cluster", api.backend().local.cluster_name.clone()),
            ("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
            ("arch_bits", usize::BITS.to_string()),
            ("process_id", std::process::id().to_string()),
            ("run_id", format!("{:040x}", u128::from(api.backend().local.incarnation.0))),
            ("tcp_port", api.port().to_string()),
            ("server_time_usec", since_1970().as_micros().to_string()),
            ("uptime_in_seconds", up.to_string()),
            ("uptime_in_days", (up / 86_400).to_string()),
        ],
        "clients" => vec![
            ("connected_clients", api.clients().count().to_string()),
            ("maxclients", api.connections_max().to_string()),
            ("blocked_clients", "0".to_owned()),
        ],
        "memory" => {
            let resident = resident_bytes().unwrap_or(0);
            vec![
                ("used_memory", resident.to_string()),
                ("used_memory_human", format!("{:.2}M", resident as f64 / f64::from(1 << 20))),
                ("used_memory_rss", resident.to_string()),
                ("maxmemory", "0".to_owned()),
                ("maxmemory_policy", "noeviction".to_owned()),
            ]
        }
        "persistence" => vec![
            ("loading", "0".to_owned()),
            ("rdb_changes_since_last_save", "0".to_owned()),
            ("rdb_bgsave_in_progress", "0".to_owned()),
            ("rdb_last_save_time", since_1970().as_secs().to_string()),
            ("rdb_last_bgsave_status", "ok".to_owned()),
            ("aof_enabled", "1".to_owned()),
            ("aof_rewrite_in_progress", "0".to_owned()),
            ("aof_last_write_status", "ok".to_owned()),
        ],
        "stats" => vec![
            ("total_connections_received", api.clients().received().to_string()),
            ("total_commands_processed", api.commands().to_string()),
            ("rejected_connections", "0".to_owned()),
            ("evicted_keys", "0".to_owned()),
        ],
        "replication" => vec![
            ("role", "master".to_owned()),
            ("connected_slaves", "0".to_owned()),
            ("master_replid", format!("{:040x}", u128::from(api.backend().local.incarnation.0))),
            ("master_repl_offset", "0".to_owned()),
        ],
        "cpu" => {
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            vec![("used_cpu_user", format!("{}.{:06}", used.tv_sec, used.tv_nsec / 1_000))]
        }
        "cluster" => vec![("cluster_enabled", u8::from(session.is_slotted()).to_string())],
        _ => Vec::new(),
    };
    let _ = write!(text, "# {title}\r\n");
    for (name, value) in fields {
        let _ = write!(text, "{name}:{value}\r\n");
    }
}

/// The process's resident memory.
fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
