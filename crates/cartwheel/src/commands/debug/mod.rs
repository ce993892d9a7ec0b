//! `cartwheel debug bundle`: what support asks for, in one archive.

mod archive;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cartwheel_client::{Client, ClusterStatus, Error, MemberStatus};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::cli::{BundleArgs, DebugCommand};
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::print;
use archive::Archive;

/// How long a node may take for one response.
const WITHIN: Duration = Duration::from_secs(5);
/// What the cluster is asked, once.
const OF_CLUSTER: [&str; 4] = ["/v1/cluster", "/v1/cluster/ring", "/v1/cluster/transfers", "/v1/buckets"];
/// What each node is asked. What a node of another version does not know is left out.
const OF_NODE: [&str; 8] = [
    "/v1/cluster",
    "/v1/cluster/replicas",
    "/v1/cluster/drain",
    "/readyz",
    "/metrics",
    "/v1/debug/log",
    "/v1/debug/node",
    "/v1/debug/queues",
];
/// Lists further calls for support, where a node has it.
const INDEX: &str = "/v1/debug";
/// The most calls that an index may add.
const INDEXED_MAX: usize = 64;

/// A file of the archive.
struct Collected {
    path: String,
    bytes: Vec<u8>,
}

/// Runs a command for support.
///
/// # Errors
/// If no node answers, or the archive cannot be written.
pub async fn run(command: &DebugCommand) -> Result<ExitCode, CommandError> {
    match command {
        DebugCommand::Bundle(args) => bundle(args).await,
    }
}

async fn bundle(args: &BundleArgs) -> Result<ExitCode, CommandError> {
    let begun = SystemTime::now();
    let any = args.endpoints.client()?.with_timeout(WITHIN);
    let status = any.cluster().await?;
    let mut files = collect(&any, "cluster", &OF_CLUSTER.map(str::to_owned)).await;
    let nodes = status.members.iter().map(|member| of_node(args, member));
    let (mut reached, mut missing) = (Vec::new(), Vec::new());
    for (member, collected) in status.members.iter().zip(join_all(nodes).await) {
        match collected {
            Ok(collected) => {
                reached.push(member.member.name.clone());
                files.extend(collected);
            }
            Err(error) => missing.push((member.member.name.clone(), error.to_string())),
        }
    }
    reached.sort_unstable();
    missing.sort_unstable();
    files.push(manifest(begun, &status, &reached, &missing));
    let name = format!("cartwheel-bundle-{}", compact(begun));
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    write(&output, &name, &files, begun).map_err(|error| CommandError::File(output.clone(), error))?;
    let mut text = format!("wrote {}: {} files of {} nodes\n", output.display(), files.len(), reached.len());
    for (name, why) in &missing {
        text += &format!("missing: {name}: {why}\n");
    }
    print((text + "look through it before you pass it on: logs may name keys\n").as_bytes())?;
    Ok(if missing.is_empty() { Exit::Done } else { Exit::Negative }.into())
}

/// What one node says of itself.
async fn of_node(args: &BundleArgs, member: &MemberStatus) -> Result<Vec<Collected>, Error> {
    let client = args.endpoints.client_of([&member.member.http])?.with_timeout(WITHIN);
    // Whether it answers at all; an old one may refuse the calls for support.
    client.cluster().await?;
    let mut paths: BTreeSet<String> = OF_NODE.map(str::to_owned).into();
    if let Ok(Some(index)) = client.raw(INDEX).await {
        paths.extend(paths_in(&serde_json::from_slice(&index).unwrap_or_default()));
    }
    let paths: Vec<String> = paths.into_iter().collect();
    Ok(collect(&client, &format!("nodes/{}", safe(&member.member.name)), &paths).await)
}

/// The calls that an index names, in whatever form.
fn paths_in(index: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![index];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => {
                left.extend(fields.values());
                found.extend(fields.keys().cloned());
            }
            Value::String(text) => found.push(text.clone()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let is_call = |path: &String| path.starts_with("/v1/debug/") && !path.contains(['{', ' ', '?']) && path.len() < 100;
    found.retain(is_call);
    found.truncate(INDEXED_MAX);
    found
}

/// The responses to calls, as files in a folder. A failure is a file too, so that its cause is not lost.
async fn collect(client: &Client, folder: &str, paths: &[String]) -> Vec<Collected> {
    let files = paths.iter().map(|path| async move {
        let name = safe(path.trim_start_matches("/v1/").trim_start_matches('/'));
        let file = |end: &str, bytes: Vec<u8>| Collected { path: format!("{folder}/{name}{end}"), bytes };
        match client.raw(path).await {
            Ok(None) => None,
            Ok(Some(body)) => match serde_json::from_slice::<Value>(&body) {
                Ok(value) => match lines(&value) {
                    Some(lines) => Some(file(".txt", lines.into_bytes())),
                    None => Some(file(".json", serde_json::to_vec_pretty(&value).unwrap_or_default())),
                },
                Err(_) => Some(file(".txt", body.to_vec())),
            },
            Err(error) => Some(file(".error.txt", format!("{error}\n").into_bytes())),
        }
    });
    join_all(files).await.into_iter().flatten().collect()
}

/// The lines of a log, as they are read by people.
fn lines(value: &Value) -> Option<String> {
    let lines = value.get("lines")?.as_array()?;
    lines.iter().map(|line| Some(format!("{}\n", line.as_str()?))).collect()
}

/// A name without characters that mean something in a path.
fn safe(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(safe).take(80).collect::<String>().trim_start_matches('.').to_owned()
}

fn manifest(begun: SystemTime, status: &ClusterStatus, reached: &[String], missing: &[(String, String)]) -> Collected {
    let missing: Vec<Value> = missing.iter().map(|(node, why)| json!({ "node": node, "why": why })).collect();
    let manifest = json!({
        "made": humantime::format_rfc3339_seconds(begun).to_string(),
        "made_by": format!("cartwheel {}", env!("CARGO_PKG_VERSION")),
        "cluster": status.cluster,
        "cluster_name": status.cluster_name,
        "asked_first": status.node,
        "nodes": reached,
        "missing": missing,
    });
    Collected { path: "manifest.json".to_owned(), bytes: serde_json::to_vec_pretty(&manifest).unwrap_or_default() }
}

/// A time for the name of a file, as 20260131T235959Z.
fn compact(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().replace(['-', ':'], "")
}

fn write(output: &Path, name: &str, files: &[Collected], made: SystemTime) -> io::Result<()> {
    let made = made.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut archive = Archive::create(output, made)?;
    for Collected { path, bytes } in files {
        archive.add(&format!("{name}/{path}"), bytes)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_an_index_are_found_in_any_form() {
        let forms = [
            json!(["/v1/debug/log", "/v1/debug/slow?limit=1", "/v1/cluster"]),
            json!({ "calls": [{ "path": "/v1/debug/log", "does": "shows the log" }] }),
            json!({ "/v1/debug/log": "shows the log", "/v1/debug/partitions/{partition}": 1 }),
        ];
        for form in forms {
            assert_eq!(paths_in(&form), ["/v1/debug/log"], "{form}");
        }
    }

    #[test]
    fn names_of_nodes_cannot_leave_the_archive() {
        assert_eq!(safe("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(safe("node-1.example"), "node-1.example");
        assert_eq!(compact(UNIX_EPOCH), "19700101T000000Z");
    }
}
