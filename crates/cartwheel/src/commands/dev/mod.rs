//! `cartwheel dev`: a cluster on one machine. Each node is a process, so that one can be killed.

mod child;
mod tls;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::cli::DevArgs;
use crate::commands::bench::dial::Dial;
use crate::terminal::output;
use crate::terminal::signals;
use crate::terminal::table::table;
use cartwheel_core::cluster::membership::Member;
use cartwheel_server::lifecycle::bootstrap::{self, BootstrapError, NodeDir, Site};
use cartwheel_server::lifecycle::renew::{self, RenewError};
use child::Child;
use tls::DevCertificates;

/// The time in which the nodes must become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The limit of bytes read from a response about readiness, above the size of any such response.
const RESPONSE_BYTES_MAX: u64 = 4_096;

/// The reasons why a cluster does not run.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The cluster cannot be bootstrapped or opened.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A node's directory is missing, and a new one could not be created.
    #[error(transparent)]
    Renew(#[from] RenewError),
    /// A node's address is in use by another process.
    #[error(
        "{name} cannot listen on {addr}: {source}; stop the process that uses the port, or choose other ports with {flag}; nothing was {begun}"
    )]
    PortTaken {
        /// The node's name.
        name: String,
        /// The address.
        addr: String,
        /// The flag that sets the port.
        flag: &'static str,
        /// What did not happen: `bootstrapped` or `started`.
        begun: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A node's process could not be started.
    #[error("cannot start the process of {name}: {source}")]
    Start {
        /// The node's name.
        name: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A node ended before it was ready.
    #[error("{name} {how} before it was ready; its log {} ends with:\n{tail}", .log.display())]
    Unready {
        /// The node's name.
        name: String,
        /// How the process ended.
        how: String,
        /// The path of the node's log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The nodes were not ready in time.
    #[error("the nodes were not ready within {} s: see the logs in {}", READY_WITHIN.as_secs(), .0.display())]
    Slow(PathBuf),
    /// All nodes have ended.
    #[error("all nodes have ended: see the logs in {0}")]
    AllEnded(PathBuf),
    /// The certificates cannot be made or used.
    #[error("{0}")]
    Certificates(String),
    /// Signal handlers cannot be installed.
    #[error("cannot install signal handlers: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs the cluster in a directory until the process receives a signal to stop.
///
/// # Errors
/// If the cluster cannot be bootstrapped or started, or all its nodes die.
pub async fn run(args: &DevArgs) -> Result<(), DevError> {
    let stopped = signals::stop(signals::Parent::Unwatched).map_err(DevError::Signals)?;
    let hung_up = signals::hang_up().map_err(DevError::Signals)?;
    let stopped = async {
        tokio::select! {
            why = stopped => why,
            why = hung_up => why,
        }
    };
    let is_new = bootstrap::is_new(&args.dir)?;
    if is_new {
        // Checked before the bootstrap, which would fix these ports in the cluster's data.
        for number in 1..=args.nodes.unwrap_or(bootstrap::NODES_DEFAULT) {
            let Site { http_addr, resp_addr, peer_addr, .. } = args.ports().site(number)?;
            check_free(args, &bootstrap::name_of(number), [&http_addr, &resp_addr, &peer_addr], "bootstrapped")?;
        }
    }
    for name in renew::renew_missing(&args.dir)? {
        output::note(format_args!(
            "note: {name} had lost its data directory: created a new, empty incarnation, to which its peers copy the data"
        ));
    }
    let known = bootstrap::open_or_bootstrap(&args.dir, args.nodes, args.shards, args.ports())?;
    let nodes = with_addresses(args, &known)?;
    for node in nodes.iter().filter(|_| !is_new) {
        let Member { name, http_addr, resp_addr, peer_addr, .. } = &node.member;
        check_free(args, name, [http_addr, resp_addr, peer_addr], "started")?;
    }
    let mut flags = address_flags(args, &known, &nodes);
    let certificates = args.tls.then(|| DevCertificates::open(&args.dir)).transpose()?;
    if let Some(certificates) = &certificates {
        for (node, flags) in nodes.iter().zip(&mut flags) {
            flags.extend(certificates.flags(&node.member.name)?);
        }
    }
    let mut children = Vec::new();
    for (node, flags) in nodes.iter().zip(flags) {
        match Child::start(node, &args.tuning, &flags) {
            Ok(child) => children.push(child),
            Err(source) => {
                child::stop_all(children).await;
                return Err(DevError::Start { name: node.member.name.clone(), source });
            }
        }
    }
    let data = if is_new { "a new cluster in" } else { "the existing cluster in" };
    output::say(format_args!("{} nodes, {data} {}\n", nodes.len(), args.dir.display()));
    output::say(nodes_table(&nodes, &children, args.tls).trim_end());
    let ended = tokio::select! {
        ended = watch(&args.dir, &nodes, &mut children, certificates.as_ref()) => ended,
        why = stopped => {
            output::say(format_args!("\nstopping all nodes ({why})"));
            Ok(())
        }
    };
    child::stop_all(children).await;
    ended
}

/// Checks that a node's addresses for HTTP, Redis clients and peers are free. If the node's own process met the error, it would only appear in
/// a log. The default port for Redis clients may be in use, by a Redis server for example: then the node serves none.
fn check_free(args: &DevArgs, name: &str, addrs: [&str; 3], begun: &'static str) -> Result<(), DevError> {
    for (addr, flag) in addrs.into_iter().zip(["--http-base", "--resp-base", "--peer-base"]) {
        let Err(source) = TcpListener::bind(addr) else { continue };
        if flag != "--resp-base" || args.resp_base.is_some() {
            return Err(DevError::PortTaken { name: name.to_owned(), addr: addr.to_owned(), flag, begun, source });
        }
        output::note(format_args!(
            "note: {addr} is in use, so {name} serves no Redis clients; choose other ports with {flag}"
        ));
    }
    Ok(())
}

/// The nodes with their addresses: at the ports of the command line if given, otherwise at their earlier ports.
fn with_addresses(args: &DevArgs, known: &[NodeDir]) -> Result<Vec<NodeDir>, DevError> {
    let nodes = (1..).zip(known).map(|(number, node)| {
        let (site, mut node) = (args.ports().site(number)?, node.clone());
        if args.http_base.is_some() {
            node.member.http_addr = site.http_addr;
        }
        if args.resp_base.is_some() {
            node.member.resp_addr = site.resp_addr;
        }
        if args.peer_base.is_some() {
            node.member.peer_addr = site.peer_addr;
        }
        Ok(node)
    });
    nodes.collect()
}

/// The flags that give each node its own new addresses and those of its peers; empty if no address has changed.
fn address_flags(args: &DevArgs, known: &[NodeDir], nodes: &[NodeDir]) -> Vec<Vec<String>> {
    let seeds: Vec<&str> = nodes.iter().map(|node| node.member.peer_addr.as_str()).collect();
    let has_moved = |(before, after): (&NodeDir, &NodeDir)| {
        (&before.member.http_addr, &before.member.peer_addr) != (&after.member.http_addr, &after.member.peer_addr)
    };
    let have_moved = known.iter().zip(nodes).any(has_moved);
    let flags = |node: &NodeDir| {
        let Member { http_addr, resp_addr, peer_addr, .. } = &node.member;
        let mut flags = Vec::new();
        if have_moved {
            flags.extend([format!("--http-listen={http_addr}"), format!("--peer-listen={peer_addr}")]);
            flags.push(format!("--seed={}", seeds.join(",")));
        }
        if args.resp_base.is_some() {
            flags.push(format!("--resp-listen={resp_addr}"));
        }
        flags
    };
    nodes.iter().map(flags).collect()
}

/// Reports when all nodes are ready and when a node dies; returns when no node is left.
async fn watch(
    dir: &Path,
    nodes: &[NodeDir],
    children: &mut [Child],
    certificates: Option<&DevCertificates>,
) -> Result<(), DevError> {
    let tls = certificates.map(DevCertificates::tls).transpose()?;
    let dial = Dial::new(tls.as_ref(), None);
    let pids_by_addr: Vec<(String, u32)> =
        nodes.iter().zip(&*children).map(|(node, child)| (node.member.http_addr.clone(), child.pid())).collect();
    tokio::select! {
        ready = tokio::time::timeout(READY_WITHIN, all_ready(&pids_by_addr, &dial)) => {
            ready.map_err(|_| DevError::Slow(dir.to_path_buf()))?;
        }
        (at, how) = child::next_exit(children) => return Err(children[at].unready(how)),
    }
    print_examples(nodes, certificates);
    let mut alive = children.len();
    while alive > 0 {
        let (at, how) = child::next_exit(children).await;
        alive -= 1;
        let node = &nodes[at];
        output::say(format_args!(
            "{} {how}. Restart it with: cartwheel serve --dir {}",
            node.member.name,
            node.dir.display()
        ));
    }
    Err(DevError::AllEnded(dir.to_path_buf()))
}

async fn all_ready(pids_by_addr: &[(String, u32)], dial: &Dial) {
    let mut waits = JoinSet::new();
    for (addr, pid) in pids_by_addr.iter().cloned() {
        let dial = dial.clone();
        waits.spawn(async move {
            while !is_ready(&addr, pid, &dial).await.unwrap_or(false) {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
    }
    waits.join_all().await;
}

/// Asks the node at `addr`, over minimal HTTP, whether it is ready and is the process `pid`. Without the check of the process, a node
/// of another cluster that has taken the port would answer for the node that could not start.
async fn is_ready(addr: &str, pid: u32, dial: &Dial) -> std::io::Result<bool> {
    let Some(mut stream) = dial.connect(addr).await else { return Ok(false) };
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut response = Vec::new();
    stream.take(RESPONSE_BYTES_MAX).read_to_end(&mut response).await?;
    let response = String::from_utf8_lossy(&response);
    Ok(response.starts_with("HTTP/1.1 200") && response.contains(&format!("\"pid\":{pid}}}")))
}

fn nodes_table(nodes: &[NodeDir], children: &[Child], is_tls: bool) -> String {
    let scheme = if is_tls { "https" } else { "http" };
    let rows = nodes.iter().zip(children).map(|(NodeDir { member, .. }, child)| {
        let http = format!("{scheme}://{}", member.http_addr);
        let (pid, log) = (child.pid().to_string(), child.log().display().to_string());
        [member.name.clone(), http, member.peer_addr.clone(), pid, log, member.resp_addr.clone()]
    });
    table(["NODE", "HTTP", "PEERS", "PID", "LOG", "REDIS"], rows)
}

fn print_examples(nodes: &[NodeDir], certificates: Option<&DevCertificates>) {
    let (first, last) = (&nodes[0].member.http_addr, &nodes[nodes.len() - 1].member.http_addr);
    let redis_port = nodes[0].member.resp_addr.rsplit(':').next().unwrap_or_default();
    output::say(format_args!("\nall {} nodes are ready. Try, in another terminal:\n", nodes.len()));
    let (curl, redis, scheme) = match certificates.map(|certificates| certificates.authority().display().to_string()) {
        None => (String::new(), String::new(), "http"),
        Some(ca) => (format!(" --cacert {ca}"), format!(" --tls --cacert {ca}"), "https"),
    };
    output::say(format_args!("  curl -i{curl} -X PUT -d 'hello' {scheme}://{first}/v1/kv/greetings/world"));
    output::say(format_args!("  curl -i{curl} {scheme}://{last}/v1/kv/greetings/world"));
    output::say(format_args!("  redis-cli{redis} -p {redis_port} set greeting hello"));
    output::say("\nCtrl-C stops all nodes.");
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn nodes_use_the_given_ports_or_else_their_earlier_ones() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        let begin = |flags: &[&str]| {
            let line = ["cartwheel", "dev", "--dir", dir.to_str().unwrap()];
            let Command::Dev(args) = Cli::parse_from(line.iter().chain(flags)).command else { panic!("not dev") };
            let known = bootstrap::open_or_bootstrap(&args.dir, args.nodes, args.shards, args.ports()).unwrap();
            let nodes = with_addresses(&args, &known).unwrap();
            let member = nodes[1].member.clone();
            (member.http_addr, member.peer_addr, address_flags(&args, &known, &nodes)[1].join(" "))
        };
        let at = |http: u16, peers: u16| (format!("127.0.0.1:{http}"), format!("127.0.0.1:{peers}"));
        let (http, peers, flags) = begin(&["--nodes", "2", "--http-base", "20000"]);
        assert_eq!(((http, peers), flags.as_str()), (at(20_002, 7_402), ""), "it is new");
        for flags in [&[][..], &["--http-base", "20000"]] {
            let (http, peers, flags) = begin(flags);
            assert_eq!(((http, peers), flags.as_str()), (at(20_002, 7_402), ""));
        }
        let (http, peers, flags) = begin(&["--http-base", "21000", "--peer-base", "22000"]);
        assert_eq!((http, peers), at(21_002, 22_002));
        assert_eq!(
            flags,
            "--http-listen=127.0.0.1:21002 --peer-listen=127.0.0.1:22002 --seed=127.0.0.1:22001,127.0.0.1:22002"
        );
        assert_eq!(begin(&["--resp-base", "23000"]).2, "--resp-listen=127.0.0.1:23002");
    }
}
