//! `cartwheel cluster health`: one line and an exit status, from what all nodes report.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use cartwheel_client::{
    Cause, ClusterStatus, Error, LivenessStatus, MemberState, MemberStatus, ProtocolStatus, Replicas, Ring,
};
use futures_util::future::{join, join_all};
use serde::Serialize;

use super::status::{ALL_WITHIN, HEAD_START, NODE_WITHIN, first_response, replicas_of};
use super::{quorums, replicas};
use crate::cli::{HealthArgs, RequestArgs};
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::show;

/// From this offset on, nodes raise an alarm; at 10 s one takes no writes.
const CLOCK_OFFSET_MS_MAX: u64 = 500;
/// A healthy epoch lasts tens of seconds.
const EPOCH_HELD_AFTER: Duration = Duration::from_secs(5 * 60);
/// Every pair of replicas is compared within minutes.
const VERIFIED_WITHIN: Duration = Duration::from_secs(60 * 60);
/// A disk with less free space than this many times the reserve is about to be full.
const RESERVES_FREE_MIN: u64 = 2;

/// The health of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// Nothing is to be done.
    Healthy,
    /// Every key can be read and written, but something is to be done.
    Degraded,
    /// Some keys lack a quorum.
    Critical,
}

impl Level {
    const fn exit(self) -> Exit {
        match self {
            Self::Healthy => Exit::Done,
            Self::Degraded => Exit::Negative,
            Self::Critical => Exit::NoQuorum,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

/// What is wrong, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Problem {
    level: Level,
    /// A constant, for programs.
    code: &'static str,
    problem: String,
    action: String,
}

/// The health of a cluster and its reasons.
#[derive(Debug, Serialize)]
struct Report {
    status: Level,
    /// The node that told of the members.
    node: String,
    members: usize,
    members_reached: usize,
    epoch: u64,
    /// The hints that all nodes together keep for others.
    hints: u64,
    /// All replicas are verified equal as of this time, if they are.
    equal_since: Option<String>,
    problems: Vec<Problem>,
}

/// What the nodes report.
struct Seen {
    /// The view of the node that answered first.
    first: ClusterStatus,
    ring: Option<Ring>,
    /// Each member's own view, and the state of its replicas, if it answered; in the order of the members of `first`.
    members: Vec<(Option<ClusterStatus>, Option<Replicas>)>,
    now: SystemTime,
}

/// Shows the health of the cluster, or of one node. The exit status says how healthy it is.
///
/// # Errors
/// If no node could answer.
pub(super) async fn health(args: &HealthArgs) -> Result<ExitCode, CommandError> {
    if args.node_only {
        return node_only(&args.request).await;
    }
    let report = judge(&look(&args.request).await?);
    show(args.request.format, &report, |report, _| text(report))?;
    Ok(report.status.exit().into())
}

/// Asks one node whether it is ready.
async fn node_only(args: &RequestArgs) -> Result<ExitCode, CommandError> {
    #[derive(Serialize)]
    struct Node {
        status: &'static str,
        problem: Option<String>,
    }
    let endpoint = args.endpoints.local();
    let client = args.endpoints.client_of([endpoint])?.with_timeout(args.timeout.unwrap_or(NODE_WITHIN));
    let (node, exit) = match client.raw("/readyz").await {
        Ok(Some(body)) if !body.windows(9).any(|text| text == b"disk_full") => {
            (Node { status: "ready", problem: None }, Exit::Done)
        }
        Ok(_) => {
            let problem = "its disk is full, so it stores no writes; free space there".to_owned();
            (Node { status: "disk_full", problem: Some(problem) }, Exit::Negative)
        }
        Err(Error::Unavailable { cause: Cause::TooFewReplicas, last, .. }) => {
            (Node { status: "not_ready", problem: Some(last) }, Exit::Negative)
        }
        Err(error) => return Err(error.into()),
    };
    show(args.format, &node, |node, _| match &node.problem {
        None => format!("{}: {endpoint}\n", node.status),
        Some(problem) => format!("{}: {problem}\n", node.status.replace('_', " ")),
    })?;
    Ok(exit.into())
}

/// Asks a node for the members, and then all members at once.
async fn look(args: &RequestArgs) -> Result<Seen, CommandError> {
    let begun = Instant::now();
    let (client, first) =
        first_response(&args.endpoints, &args.endpoints.addresses(), args.timeout.unwrap_or(NODE_WITHIN)).await?;
    let left = args.timeout.unwrap_or(ALL_WITHIN).saturating_sub(begun.elapsed()).max(HEAD_START);
    let members = first.members.iter().map(|member| async move {
        let http = member.member.http.as_str();
        let status = async { args.endpoints.client_of([http]).ok()?.with_timeout(left).cluster().await.ok() };
        join(status, replicas_of(&args.endpoints, http, left)).await
    });
    let (ring, members) = join(client.with_timeout(left).ring(), join_all(members)).await;
    Ok(Seen { first, ring: ring.ok(), members, now: SystemTime::now() })
}

fn judge(seen: &Seen) -> Report {
    let first = &seen.first;
    let members = || first.members.iter().zip(&seen.members);
    let mut problems = Vec::new();
    let mut add = |level, code, problem: String, action: String| {
        problems.push(Problem { level, code, problem, action });
    };
    let down: Vec<&str> = first.members.iter().filter(|member| is_down(member)).map(name).collect();
    if let Some(ring) = &seen.ring {
        let short = quorums::short_without(ring, &down);
        if short > 0 {
            let problem = format!("{short} of {} partitions lack a majority of their homes", ring.partitions);
            let action =
                format!("start {}, or repair the network; reads and strong writes of their keys fail", down.join(", "));
            add(Level::Critical, "no_quorum", problem, action);
        }
    }
    let hints = |of: &MemberStatus| {
        let backlogs = seen.members.iter().filter_map(|(status, _)| status.as_ref()).flat_map(|status| &status.members);
        let owed = backlogs.filter(|member| member.member.name == of.member.name).filter_map(|member| member.hints);
        owed.map(|owed| owed.records).sum::<u64>()
    };
    for (member, (own, _)) in members() {
        let name = name(member);
        if is_down(member) {
            let why = member.liveness.as_ref().map(|liveness| liveness.why.as_str()).or(member.problem.as_deref());
            let problem =
                format!("{name} is down: {}; {} hints wait for it", why.unwrap_or("no connection"), hints(member));
            let action = format!(
                "start it; if its disk is lost, see `cartwheel renew`; if it is gone for good: cartwheel cluster remove {name}"
            );
            add(Level::Degraded, "member_down", problem, action);
            continue;
        }
        if let Some(liveness) = member.liveness.as_ref().filter(|liveness| liveness.status == LivenessStatus::Suspect) {
            let action = format!("look at the load, the log and the network of {name}");
            add(Level::Degraded, "member_suspect", format!("{name} is suspect: {}", liveness.why), action);
        }
        let Some(own) = own else {
            let action = format!("it may be slow; or run this where {} can be reached", member.member.http);
            add(
                Level::Degraded,
                "member_silent",
                format!("{name} does not answer here, but its peers reach it"),
                action,
            );
            continue;
        };
        if let Some(why) =
            own.members.iter().find(|of| of.state == MemberState::Itself).and_then(|of| of.problem.clone())
        {
            add(
                Level::Degraded,
                "member_not_ready",
                format!("{name} is not ready: {why}"),
                format!("see the log of {name}"),
            );
        }
        if member.draining || own.members.iter().any(|of| of.state == MemberState::Itself && of.draining) {
            let action = format!(
                "go on with its maintenance; a restart ends it, and so does: cartwheel cluster drain {name} --undo"
            );
            add(Level::Degraded, "member_draining", format!("{name} is draining"), action);
        }
        if let Some(disk) = own.disk.filter(|disk| disk.free_bytes < RESERVES_FREE_MIN * disk.reserve_bytes) {
            let problem = format!(
                "{name} has {} MiB of disk left, and stores no writes below {}",
                disk.free_bytes >> 20,
                disk.reserve_bytes >> 20
            );
            add(
                Level::Degraded,
                "disk_low",
                problem,
                "free space there, or add nodes: cartwheel cluster add".to_owned(),
            );
        }
        if own.hints.full {
            let problem = format!("{name} keeps as many hints as it may ({} records)", own.hints.records);
            let action = "start or replace the nodes that are down, or raise hints_share".to_owned();
            add(Level::Degraded, "hints_full", problem, action);
        }
        if own.dot_collisions > 0 {
            let problem = format!("{name} got {} keys with two contents of one version", own.dot_collisions);
            let action =
                "a disk is damaged, or two nodes run on copies of one directory: see the keys in its log".to_owned();
            add(Level::Degraded, "version_collisions", problem, action);
        }
    }
    clocks(seen, &mut add);
    let replication = &first.replication;
    if replication.under_replicated > 0 {
        let problem =
            format!("{} partitions have fewer than {} replicas", replication.under_replicated, replication.target);
        add(
            Level::Degraded,
            "under_replicated",
            problem,
            "wait for the transfers: cartwheel cluster transfers --wait".to_owned(),
        );
    }
    if replication.data_nodes < usize::from(replication.n) {
        let problem =
            format!("keys have up to n={} replicas, but {} nodes can hold data", replication.n, replication.data_nodes);
        add(Level::Degraded, "too_few_nodes", problem, "add nodes: cartwheel cluster add".to_owned());
    }
    let reports: Vec<&Replicas> = seen.members.iter().filter_map(|(_, replicas)| replicas.as_ref()).collect();
    let (equal_since, unproven) = replicas::equal_since(reports.iter().copied());
    let is_older = |since: &str, than: Duration| {
        let since = humantime::parse_rfc3339(since).ok();
        since.and_then(|since| seen.now.duration_since(since).ok()).is_some_and(|age| age > than)
    };
    // Pairs with a member that is down are not compared, which was said.
    if down.is_empty() && unproven > 0 {
        let action = "nodes compare their replicas all the time: wait some minutes".to_owned();
        add(Level::Degraded, "unverified", format!("{unproven} pairs of replicas are not yet verified equal"), action);
    }
    if down.is_empty()
        && let Some(since) = equal_since.as_deref().filter(|since| is_older(since, VERIFIED_WITHIN))
    {
        let action = "look at the load and the logs of the nodes; check all keys now: cartwheel verify".to_owned();
        add(
            Level::Degraded,
            "verified_long_ago",
            format!("not all replicas were verified equal since {since}"),
            action,
        );
    }
    let epoch = &first.epoch;
    if !epoch.waits_for.is_empty() && is_older(&epoch.since, EPOCH_HELD_AFTER) {
        let names = epoch.waits_for.join(", ");
        let problem = format!(
            "epoch {} is held by {names} since {}, so the space of deletes is not freed",
            epoch.epoch, epoch.since
        );
        add(Level::Degraded, "epoch_held", problem, format!("bring {names} back; if gone for good, remove it"));
    }
    versions(first, &mut add);
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.level));
    Report {
        status: problems.iter().map(|problem| problem.level).max().unwrap_or(Level::Healthy),
        node: first.node.clone(),
        members: first.members.len(),
        members_reached: seen.members.iter().filter(|(status, _)| status.is_some()).count(),
        epoch: epoch.epoch,
        hints: seen.members.iter().filter_map(|(status, _)| status.as_ref()).map(|status| status.hints.records).sum(),
        equal_since,
        problems,
    }
}

/// Members whose clocks are off those of most others. Each node reports its peers' offsets from itself; one that is off sees all others off, so what
/// most others see of it counts.
fn clocks(seen: &Seen, add: &mut impl FnMut(Level, &'static str, String, String)) {
    for member in &seen.first.members {
        let others = seen.members.iter().filter_map(|(status, _)| status.as_ref());
        let views = others.flat_map(|status| &status.members).filter(|of| of.member.name == member.member.name);
        let mut offsets: Vec<i64> = views.filter_map(|of| of.clock_offset_ms).collect();
        offsets.sort_unstable_by_key(|offset| offset.unsigned_abs());
        let Some(&offset) = offsets.get(offsets.len().saturating_sub(1) / 2) else { continue };
        if offset.unsigned_abs() >= CLOCK_OFFSET_MS_MAX {
            let name = name(member);
            let problem = format!("the clock of {name} is {offset:+} ms off those of the others");
            let action =
                format!("check time synchronization there (chrony, ntpd); at 10 s off, {name} takes no writes");
            add(Level::Degraded, "clock_off", problem, action);
        }
    }
}

fn versions(first: &ClusterStatus, add: &mut impl FnMut(Level, &'static str, String, String)) {
    let mut versions: Vec<&str> = first.members.iter().filter_map(|member| member.version.as_deref()).collect();
    versions.sort_unstable();
    versions.dedup();
    let ProtocolStatus { in_use, newest, waits_for } = &first.protocol;
    if versions.len() > 1 {
        let problem = format!("members run different versions: {}", versions.join(", "));
        add(Level::Degraded, "versions_mixed", problem, "finish the rolling upgrade".to_owned());
    } else if !waits_for.is_empty() && *in_use < *newest {
        let names = waits_for.join(", ");
        let problem = format!("protocol version {newest} waits for {names}");
        add(Level::Degraded, "protocol_waits", problem, format!("start or upgrade {names}"));
    }
}

fn name(member: &MemberStatus) -> &str {
    &member.member.name
}

fn is_down(member: &MemberStatus) -> bool {
    let is_declared = member.liveness.as_ref().is_some_and(|liveness| liveness.status == LivenessStatus::Down);
    is_declared || member.state == MemberState::Disconnected
}

/// One line, and one more for each problem.
fn text(report: &Report) -> String {
    let Report { status, members, members_reached, epoch, hints, equal_since, problems, .. } = report;
    if problems.is_empty() {
        let verified = match equal_since {
            Some(since) => format!("replicas verified equal as of {since}"),
            None => "no partition has more than one replica".to_owned(),
        };
        return format!("healthy: {members} members, epoch {epoch}, {hints} hints, {verified}\n");
    }
    let all: Vec<&str> = problems.iter().map(|problem| problem.problem.as_str()).collect();
    let mut text = format!("{}: {members_reached} of {members} members answer; {}\n", status.name(), all.join("; "));
    for Problem { problem, action, .. } in problems {
        text += &format!("- {problem}\n  {action}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use cartwheel_client::{Backlog, DiskSpace, EpochStatus, Hints, Liveness, Member, ReplicaProof, Replication};

    use super::*;

    const NOW: &str = "2026-01-01T12:00:00Z";

    /// Node-1 as it sees itself and the two others, at 12:00.
    fn status(node: usize) -> ClusterStatus {
        let member = |number: usize| MemberStatus {
            member: Member {
                name: format!("node-{number}"),
                id: String::new(),
                zone: String::new(),
                host: String::new(),
                http: format!("node-{number}:8080"),
                resp: String::new(),
                peers: String::new(),
            },
            weight: 100,
            incarnation: String::new(),
            leaving: false,
            draining: false,
            state: if number == node { MemberState::Itself } else { MemberState::Connected },
            since: None,
            problem: None,
            boot: None,
            version: Some("0.1.0".to_owned()),
            protocol: None,
            liveness: None,
            clock_offset_ms: (number != node).then_some(3),
            hints: (number != node).then_some(Backlog { records: 0, bytes: 0 }),
        };
        ClusterStatus {
            cluster: String::new(),
            cluster_name: String::new(),
            node: format!("node-{node}"),
            ring_version: String::new(),
            epoch: EpochStatus { epoch: 7, since: NOW.to_owned(), waits_for: Vec::new() },
            protocol: ProtocolStatus::default(),
            hints: Hints::default(),
            replication: Replication { n: 3, data_nodes: 3, target: 3, under_replicated: 0, fewest: 3 },
            dot_collisions: 0,
            disk: Some(DiskSpace { bytes: 100 << 30, free_bytes: 50 << 30, reserve_bytes: 256 << 20 }),
            members: (1..=3).map(member).collect(),
        }
    }

    fn seen() -> Seen {
        let members = status(1).members.iter().map(|status| status.member.clone()).collect();
        let ring = Ring {
            version: String::new(),
            partitions: 2,
            owners: vec![0, 1],
            homes: vec![vec![0, 1, 2], vec![1, 2, 0]],
            placements: Default::default(),
            members,
        };
        let proofs = |node: usize| {
            let proof = |peer: usize| ReplicaProof {
                partition: 0,
                n: 3,
                peer: format!("node-{peer}"),
                equal_since: Some("2026-01-01T11:59:00Z".to_owned()),
            };
            let replicas = (1..=3).filter(|&peer| peer != node).map(proof).collect();
            Replicas { node: format!("node-{node}"), equal_since: None, unproven: 0, replicas }
        };
        let members = (1..=3).map(|node| (Some(status(node)), Some(proofs(node)))).collect();
        Seen { first: status(1), ring: Some(ring), members, now: humantime::parse_rfc3339(NOW).unwrap() }
    }

    /// The codes of the problems of a cluster that was changed so, and its status.
    fn judged(change: impl FnOnce(&mut Seen)) -> (Level, Vec<&'static str>) {
        let mut seen = seen();
        change(&mut seen);
        let report = judge(&seen);
        assert!(report.problems.iter().all(|problem| problem.action.len() > 10));
        assert!(text(&report).lines().next().unwrap().starts_with(report.status.name()));
        (report.status, report.problems.iter().map(|problem| problem.code).collect())
    }

    fn down(seen: &mut Seen, number: usize) {
        let why = "it answered no probes".to_owned();
        let liveness = Liveness { status: LivenessStatus::Down, since: NOW.to_owned(), why };
        seen.first.members[number - 1].liveness = Some(liveness);
        seen.members[number - 1] = (None, None);
    }

    #[test]
    fn a_healthy_cluster_takes_one_line() {
        let report = judge(&seen());
        assert_eq!((report.status, report.problems.len()), (Level::Healthy, 0));
        assert_eq!(
            text(&report),
            "healthy: 3 members, epoch 7, 0 hints, replicas verified equal as of 2026-01-01T11:59:00Z\n"
        );
        assert_eq!(report.status.exit() as u8, 0);
    }

    #[test]
    fn each_problem_is_named_and_degrades_the_cluster() {
        let own = |seen: &mut Seen, change: fn(&mut ClusterStatus)| change(seen.members[1].0.as_mut().unwrap());
        type Change = Box<dyn FnOnce(&mut Seen)>;
        let cases: [(&str, Change); 14] = [
            ("member_down", Box::new(|seen| down(seen, 3))),
            ("member_silent", Box::new(|seen| seen.members[1] = (None, seen.members[1].1.take()))),
            (
                "member_not_ready",
                Box::new(move |seen| own(seen, |own| own.members[1].problem = Some("disk_full".into()))),
            ),
            ("member_draining", Box::new(move |seen| own(seen, |own| own.members[1].draining = true))),
            ("disk_low", Box::new(move |seen| own(seen, |own| own.disk.as_mut().unwrap().free_bytes = 300 << 20))),
            ("hints_full", Box::new(move |seen| own(seen, |own| own.hints.full = true))),
            ("version_collisions", Box::new(move |seen| own(seen, |own| own.dot_collisions = 1))),
            ("under_replicated", Box::new(|seen| seen.first.replication.under_replicated = 1)),
            ("too_few_nodes", Box::new(|seen| seen.first.replication.data_nodes = 2)),
            (
                "unverified",
                Box::new(|seen| {
                    for (_, replicas) in &mut seen.members {
                        replicas.as_mut().unwrap().replicas.iter_mut().for_each(|proof| proof.equal_since = None);
                    }
                }),
            ),
            ("verified_long_ago", Box::new(|seen| seen.now += Duration::from_secs(2 * 3_600))),
            (
                "epoch_held",
                Box::new(|seen| {
                    seen.first.epoch.since = "2026-01-01T11:50:00Z".to_owned();
                    seen.first.epoch.waits_for = vec!["node-3".to_owned()];
                }),
            ),
            ("versions_mixed", Box::new(|seen| seen.first.members[2].version = Some("0.2.0".to_owned()))),
            (
                "protocol_waits",
                Box::new(|seen| {
                    seen.first.protocol = ProtocolStatus { in_use: 1, newest: 2, waits_for: vec!["node-3".to_owned()] };
                }),
            ),
        ];
        for (code, change) in cases {
            let (level, codes) = judged(change);
            assert_eq!(level, Level::Degraded, "{code}");
            assert!(codes.contains(&code), "{code}: {codes:?}");
        }
        assert_eq!(Level::Degraded.exit() as u8, 1);
    }

    #[test]
    fn two_of_three_homes_down_is_critical() {
        let (level, codes) = judged(|seen| {
            down(seen, 2);
            down(seen, 3);
        });
        assert_eq!((level, codes[0], level.exit() as u8), (Level::Critical, "no_quorum", 4));
    }

    #[test]
    fn the_node_whose_clock_is_off_is_named_and_not_those_that_it_sees() {
        let mut seen = seen();
        for (number, (status, _)) in (1..).zip(&mut seen.members) {
            for member in &mut status.as_mut().unwrap().members {
                let is_off = |name: &str| name == "node-2";
                member.clock_offset_ms = match (number, is_off(&member.member.name)) {
                    (2, false) => Some(-900),
                    (1 | 3, true) => Some(900),
                    (2, true) => None,
                    _ => Some(0),
                };
            }
        }
        let report = judge(&seen);
        let off: Vec<_> = report.problems.iter().filter(|problem| problem.code == "clock_off").collect();
        assert_eq!(off.len(), 1);
        assert!(off[0].problem.starts_with("the clock of node-2 is +900 ms off"), "{}", off[0].problem);
    }
}
