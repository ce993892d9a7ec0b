//! `cartwheel cluster status`: queries several nodes at the same time, so that a hanging node does not delay the result.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cartwheel_client::{
    Client, ClusterStatus, EpochStatus, Hints, LivenessStatus, MemberState, MemberStatus, ProtocolStatus,
    ProtocolVersions, Replicas, Replication, Ring,
};
use futures_util::future::{join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::replicas;
use crate::cli::{Endpoints, RequestArgs};
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::{formatted, print};
use crate::terminal::table::table;

/// The default timeouts of one node and of the whole command.
pub(super) const NODE_WITHIN: Duration = Duration::from_millis(1_500);
pub(super) const ALL_WITHIN: Duration = Duration::from_millis(1_700);
/// The delay before the next node is queried as well. With it, the first node given answers if it is healthy.
pub(super) const HEAD_START: Duration = Duration::from_millis(100);

/// The status of a cluster as it is shown.
pub(super) struct Shown {
    /// The text, in the format that was asked for.
    pub(super) text: String,
    /// Whether all members are reachable and healthy.
    pub(super) exit: Exit,
    /// The HTTP addresses of the members.
    pub(super) addresses: Vec<String>,
}

/// Shows the members. The exit status says whether all of them are reachable and healthy.
///
/// # Errors
/// If no node could answer.
pub(super) async fn status(args: &RequestArgs) -> Result<ExitCode, CommandError> {
    let shown = shown(args, &args.endpoints.addresses()).await?;
    print(shown.text.as_bytes())?;
    Ok(shown.exit.into())
}

/// The status, as one of the nodes at `addresses` sees it.
///
/// # Errors
/// If none of them could answer.
pub(super) async fn shown(args: &RequestArgs, addresses: &[&str]) -> Result<Shown, CommandError> {
    let begun = Instant::now();
    let within = args.timeout.unwrap_or(NODE_WITHIN);
    let (client, status) = first_response(&args.endpoints, addresses, within).await?;
    let addresses = status.members.iter().map(|status| status.member.http.clone()).collect();
    let exit = verdict(&status);
    if args.format.is_for_programs() {
        return Ok(Shown { text: formatted(args.format, &status, |_, _| String::new()), exit, addresses });
    }
    let left = args.timeout.unwrap_or(ALL_WITHIN).saturating_sub(begun.elapsed()).max(HEAD_START);
    let requests = status.members.iter().map(|status| replicas_of(&args.endpoints, &status.member.http, left));
    let (ring, reports) = join(client.with_timeout(left).ring(), join_all(requests)).await;
    let text = formatted(args.format, &status, |status, wide| status_text(status, ring.as_ref().ok(), wide));
    let silent = status.members.iter().zip(&reports).filter(|(_, report)| report.is_none());
    let silent: Vec<&str> = silent.map(|(status, _)| status.member.name.as_str()).collect();
    let reports: Vec<Replicas> = reports.into_iter().flatten().collect();
    Ok(Shown { text: format!("{text}\n{}\n", replicas::summary(&reports, &silent)), exit, addresses })
}

/// Returns the first response, and a client of the node that sent it.
pub(super) async fn first_response(
    endpoints: &Endpoints,
    nodes: &[&str],
    within: Duration,
) -> Result<(Client, ClusterStatus), CommandError> {
    let query = |(rank, node): (usize, &&str)| {
        let client = endpoints.client_of([*node]).map(|client| client.with_timeout(within));
        async move {
            tokio::time::sleep(HEAD_START * rank as u32).await;
            let client = client.map_err(|error| (rank, error))?;
            let status = client.cluster().await.map_err(|error| (rank, error))?;
            Ok((client, status))
        }
    };
    let mut requests: FuturesUnordered<_> = nodes.iter().enumerate().map(query).collect();
    let mut failures = Vec::new();
    while let Some(response) = requests.next().await {
        match response {
            Ok(response) => return Ok(response),
            Err(failure) => failures.push(failure),
        }
    }
    // The failure of the first node given is the most useful one.
    let first = failures.into_iter().min_by_key(|&(rank, _)| rank);
    Err(first.map_or(cartwheel_client::BadEndpoint::None.into(), |(_, error)| error).into())
}

pub(super) async fn replicas_of(endpoints: &Endpoints, http: &str, within: Duration) -> Option<Replicas> {
    endpoints.client_of([http]).ok()?.with_timeout(within).replicas().await.ok()
}

fn verdict(status: &ClusterStatus) -> Exit {
    let is_replicated = status.replication.under_replicated == 0;
    let is_alive = status.members.iter().all(is_healthy);
    let is_healthy = is_alive && is_replicated && !status.hints.full && status.dot_collisions == 0;
    if is_healthy { Exit::Done } else { Exit::Negative }
}

fn is_healthy(member: &MemberStatus) -> bool {
    member.problem.is_none() && member.state != MemberState::Disconnected && liveness_problem(member).is_none()
}

/// The text of the column STATUS.
fn state_of(member: &MemberStatus) -> String {
    let state = match (member.state, member.liveness.as_ref().map(|liveness| liveness.status)) {
        (_, Some(LivenessStatus::Suspect)) => "suspect",
        (_, Some(LivenessStatus::Down)) => "down",
        (MemberState::Disconnected, _) => "disconnected",
        (MemberState::Itself, _) if member.problem.is_some() => "not ready",
        (MemberState::Itself | MemberState::Connected, _) => "alive",
    };
    let state = if member.draining { format!("{state}, draining") } else { state.to_owned() };
    if member.leaving { format!("{state}, leaving") } else { state }
}

const fn connection(state: MemberState) -> &'static str {
    match state {
        MemberState::Itself => "self",
        MemberState::Connected => "connected",
        MemberState::Disconnected => "disconnected",
    }
}

/// The reason why a member does not count as alive.
fn liveness_problem(member: &MemberStatus) -> Option<&str> {
    let liveness = member.liveness.as_ref().filter(|liveness| liveness.status != LivenessStatus::Alive);
    liveness.map(|liveness| liveness.why.as_str())
}

fn problem(member: &MemberStatus) -> String {
    let problems: Vec<&str> = liveness_problem(member).into_iter().chain(member.problem.as_deref()).collect();
    problems.join("; ")
}

/// The share of all replicas of partitions that a member holds.
fn load(ring: Option<&Ring>, name: &str) -> String {
    let share = || {
        let ring = ring?;
        let at = ring.members.iter().position(|member| member.name == name)?;
        let all = ring.homes.iter().flatten();
        let (held, replicas) = (all.clone().filter(|&&home| home == at).count(), all.count());
        Some(format!("{:.1}%", 100.0 * held as f64 / replicas.max(1) as f64))
    };
    share().unwrap_or_else(unknown)
}

fn unknown() -> String {
    "-".to_owned()
}

/// The members that have not yet finished an epoch. Every member takes a while, so this alone is not a problem.
fn waits(epoch: &EpochStatus) -> String {
    match epoch.waits_for.as_slice() {
        [] => String::new(),
        names => format!(", not yet finished by {}", names.join(", ")),
    }
}

fn status_text(status: &ClusterStatus, ring: Option<&Ring>, wide: bool) -> String {
    let mut members: Vec<&MemberStatus> = status.members.iter().collect();
    members.sort_by(|one, other| one.member.name.cmp(&other.member.name));
    let (cluster, node, version) = (&status.cluster, &status.node, &status.ring_version);
    let (EpochStatus { epoch, since, .. }, waits) = (&status.epoch, waits(&status.epoch));
    let upgrade = upgrade_line(&status.protocol);
    let name = if status.cluster_name.is_empty() { String::new() } else { format!("{}, ", status.cluster_name) };
    let mut text = format!("cluster {name}{cluster} as {node} sees it, ring version {version}\n");
    text += &format!("epoch {epoch} since {since}{waits}\n{upgrade}\n");
    text += &if wide { wide_table(&members, ring) } else { members_table(&members, ring) };
    if !wide {
        let problems = members.iter().map(|member| (&member.member.name, problem(member)));
        let problems: String = problems
            .filter(|(_, problem)| !problem.is_empty())
            .map(|(name, problem)| format!("{name}: {problem}\n"))
            .collect();
        text += &if problems.is_empty() { problems } else { format!("\n{problems}") };
    }
    text += &hints_line(node, &status.hints);
    text += &collisions_line(node, status.dot_collisions);
    text + &replication_line(&status.replication)
}

fn members_table(members: &[&MemberStatus], ring: Option<&Ring>) -> String {
    let row = |status: &&MemberStatus| {
        [
            status.member.name.clone(),
            state_of(status),
            status.weight.to_string(),
            load(ring, &status.member.name),
            status.member.zone.clone(),
            status.version.clone().unwrap_or_else(unknown),
            status.member.http.clone(),
        ]
    };
    table(["NAME", "STATUS", "WEIGHT", "LOAD", "ZONE", "VERSION", "ADDRESS"], members.iter().map(row))
}

fn wide_table(members: &[&MemberStatus], ring: Option<&Ring>) -> String {
    let header = [
        "NAME",
        "STATUS",
        "SINCE",
        "WEIGHT",
        "LOAD",
        "ZONE",
        "HOST",
        "VERSION",
        "PROTOCOL",
        "ADDRESS",
        "PEERS",
        "CONNECTION",
        "SINCE",
        "HINTS",
        "CLOCK",
        "BOOT",
        "PROBLEM",
    ];
    let row = |status: &&MemberStatus| {
        [
            status.member.name.clone(),
            state_of(status),
            status.liveness.as_ref().map_or_else(unknown, |liveness| liveness.since.clone()),
            status.weight.to_string(),
            load(ring, &status.member.name),
            status.member.zone.clone(),
            status.member.host.clone(),
            status.version.clone().unwrap_or_else(unknown),
            status.protocol.map_or_else(unknown, protocol_versions),
            status.member.http.clone(),
            status.member.peers.clone(),
            connection(status.state).to_owned(),
            status.since.clone().unwrap_or_else(unknown),
            status.hints.map_or_else(unknown, |hints| hints.records.to_string()),
            status.clock_offset_ms.map_or_else(unknown, |offset| format!("{offset:+} ms")),
            status.boot.map_or_else(unknown, |boot| boot.to_string()),
            problem(status),
        ]
    };
    table(header, members.iter().map(row))
}

/// The alarms for partitions with too few replicas and for a cluster with too few nodes; empty if there are none.
fn replication_line(replication: &Replication) -> String {
    let Replication { n, data_nodes, target, under_replicated, fewest } = *replication;
    let mut text = String::new();
    if under_replicated > 0 {
        text += &format!(
            "\nALARM: {under_replicated} partitions have fewer than {target} replicas (the fewest: {fewest}); see `cartwheel cluster \
             transfers`\n"
        );
    }
    if data_nodes < usize::from(n) {
        text += &format!("\nKeys have up to n={n} replicas, but {data_nodes} nodes can hold data: add nodes\n");
    }
    text
}

/// The protocol versions that a member speaks, and the version in use.
fn protocol_versions(ProtocolVersions { oldest, newest, used }: ProtocolVersions) -> String {
    match used {
        _ if oldest == newest => newest.to_string(),
        Some(used) => format!("{used} of {oldest}-{newest}"),
        None => format!("{oldest}-{newest}"),
    }
}

/// The progress of a protocol upgrade; empty if the node does not report it.
fn upgrade_line(ProtocolStatus { in_use, newest, waits_for }: &ProtocolStatus) -> String {
    match waits_for.as_slice() {
        _ if *in_use == 0 => String::new(),
        [] => format!("protocol version {in_use}\n"),
        names => {
            format!("protocol version {in_use}; version {newest} waits for {}\n", names.join(", "))
        }
    }
}

/// The hints that the node keeps for other nodes; empty if there are none.
fn hints_line(node: &str, hints: &Hints) -> String {
    let Hints { records, bytes, bytes_max, full } = hints;
    let held = format!("{node} holds hints for other nodes: {records} records");
    match (full, records) {
        (true, _) => format!(
            "\nALARM: {held}, {bytes} bytes of at most {bytes_max}; a shard is at its limit, so further hints go to other nodes: restart or \
             replace the nodes that are down\n"
        ),
        (false, 0) => String::new(),
        (false, _) => format!("\n{held}, {bytes} bytes of at most {bytes_max}\n"),
    }
}

/// The alarm for keys received with two values of one version; empty if there are none.
fn collisions_line(node: &str, collisions: u64) -> String {
    match collisions {
        0 => String::new(),
        _ => format!(
            "\nALARM: since it started, {node} has received two values of one version {collisions} times, and kept both: a disk is damaged, or \
             two nodes run on copies of one data directory; see the keys in its log\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cartwheel_client::{Liveness, Member};

    use super::*;

    fn member(name: &str, status: LivenessStatus) -> MemberStatus {
        let member = Member {
            name: name.to_owned(),
            id: "0123456789abcdef".to_owned(),
            zone: "eu-west-1a".to_owned(),
            host: "rack-17.cartwheel.example".to_owned(),
            http: "node-1.cartwheel.example:8080".to_owned(),
            resp: String::new(),
            peers: "node-1.cartwheel.example:7400".to_owned(),
        };
        let why = "it has not answered probes for 3 s, and no other member has heard of it".to_owned();
        let liveness = Liveness { status, since: "2026-01-01T00:00:00.000Z".to_owned(), why };
        MemberStatus {
            member,
            weight: 100,
            incarnation: String::new(),
            leaving: true,
            draining: false,
            state: MemberState::Connected,
            since: None,
            problem: None,
            boot: None,
            version: Some("0.1.0".to_owned()),
            protocol: None,
            liveness: Some(liveness),
            clock_offset_ms: None,
            hints: None,
        }
    }

    #[test]
    fn the_table_fits_a_terminal_and_problems_follow_it() {
        let members = vec![member("node-2", LivenessStatus::Suspect), member("node-1", LivenessStatus::Alive)];
        let ring = Ring {
            version: String::new(),
            partitions: 2,
            owners: vec![0, 1],
            homes: vec![vec![0, 1], vec![0]],
            placements: BTreeMap::new(),
            members: members.iter().map(|status| status.member.clone()).collect(),
        };
        let status = ClusterStatus {
            cluster: "c".to_owned(),
            cluster_name: "shop".to_owned(),
            node: "node-1".to_owned(),
            ring_version: "v".to_owned(),
            epoch: EpochStatus::default(),
            protocol: ProtocolStatus::default(),
            hints: Hints::default(),
            replication: Replication::default(),
            dot_collisions: 0,
            disk: None,
            members,
        };
        let text = status_text(&status, Some(&ring), false);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        assert_eq!(
            line("NAME").split_whitespace().collect::<Vec<_>>(),
            ["NAME", "STATUS", "WEIGHT", "LOAD", "ZONE", "VERSION", "ADDRESS"]
        );
        assert!(line("node-2 ").contains("suspect, leaving") && line("node-2 ").contains("66.7%"), "{text}");
        assert!(line("node-2: ").contains("has not answered probes"), "{text}");
        assert!(text.lines().filter(|line| !line.contains(": ")).all(|line| line.len() <= 100), "{text}");
        assert_eq!(verdict(&status), Exit::Negative);
        let wide = status_text(&status, None, true);
        assert!(wide.contains("PROBLEM") && wide.contains("rack-17"), "{wide}");
    }
}
