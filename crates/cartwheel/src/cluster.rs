//! `cartwheel cluster`: what a node knows of its cluster, and changes of it, over HTTP.

mod members;
mod moves;
mod replicas;
mod tracker;

use std::process::ExitCode;

use cartwheel_client::{
    Client, ClusterStatus, EpochStatus, Hints, LivenessStatus, Location, MemberChange, MemberState, MemberStatus,
    ProtocolStatus, Replication, Ring, Spoken,
};
use serde::Serialize;

use crate::cli::{AskArgs, ClusterCommand, LocateArgs};
use crate::keys::{Error, print};

/// Asks a node and shows what it says. The exit status of `status` says whether all members are reached and well.
///
/// # Errors
/// If no node could answer.
pub async fn run(command: &ClusterCommand) -> Result<ExitCode, Error> {
    match command {
        ClusterCommand::Status(args) => {
            let status = client(args)?.cluster().await?;
            show(args, &status, status_table)?;
            if !args.json {
                print(format!("\n{}\n", replicas::summary(&status).await).as_bytes())?;
            }
            let replicas_well = status.replication.under_replicated == 0;
            let members_well = status.members.iter().all(is_well);
            let all_well = members_well && replicas_well && !status.hints.full && status.dot_collisions == 0;
            Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ClusterCommand::Ring(args) => {
            let ring = client(args)?.ring().await?;
            show(args, &ring, ring_table)?;
            Ok(ExitCode::SUCCESS)
        }
        ClusterCommand::Add { nodes, weight, apply } => {
            let add = |node: &String| MemberChange::Add { node: node.clone(), weight: *weight };
            members::change(nodes.iter().map(add).collect(), apply).await
        }
        ClusterCommand::Remove { nodes, apply } => {
            let remove = |node: &String| MemberChange::Remove { node: node.clone() };
            members::change(nodes.iter().map(remove).collect(), apply).await
        }
        ClusterCommand::Replace { member, with, apply } => {
            members::change(vec![MemberChange::Replace { node: member.clone(), with: with.clone() }], apply).await
        }
        ClusterCommand::Weight { member, weight, apply } => {
            members::change(vec![MemberChange::Weight { node: member.clone(), weight: *weight }], apply).await
        }
        ClusterCommand::Zone { member, zone, host, apply } => {
            let (node, zone, host) = (member.clone(), zone.clone(), host.clone());
            members::change(vec![MemberChange::Zone { node, zone, host }], apply).await
        }
        ClusterCommand::SetAddress { member, peer_address, http_address, apply } => {
            let (node, peer_address, http_address) = (member.clone(), peer_address.clone(), http_address.clone());
            members::change(vec![MemberChange::Address { node, peer_address, http_address }], apply).await
        }
        ClusterCommand::Change { changes, apply } => members::change(changes.clone(), apply).await,
        ClusterCommand::Moves { wait, ask } => moves::moves(ask, *wait).await,
        ClusterCommand::Locate(LocateArgs { bucket, key, ask }) => {
            let location = client(ask)?.locate(bucket, key).await?;
            show(ask, &location, location_table)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(crate) fn client(args: &AskArgs) -> Result<Client, Error> {
    Ok(Client::new(&args.node)?)
}

pub(crate) fn show<T: Serialize>(args: &AskArgs, answer: &T, readable: impl Fn(&T) -> String) -> Result<(), Error> {
    let text = if args.json {
        // Text and numbers always have a JSON form.
        serde_json::to_string(answer).unwrap_or_default() + "\n"
    } else {
        readable(answer)
    };
    print(text.as_bytes())
}

fn is_well(member: &MemberStatus) -> bool {
    member.problem.is_none() && member.state != MemberState::Disconnected && complaint(member).is_none()
}

const fn standing(status: LivenessStatus) -> &'static str {
    match status {
        LivenessStatus::Alive => "alive",
        LivenessStatus::Suspect => "suspect",
        LivenessStatus::Down => "down",
    }
}

/// Why a member is not taken for alive.
fn complaint(member: &MemberStatus) -> Option<&str> {
    let liveness = member.liveness.as_ref().filter(|liveness| liveness.status != LivenessStatus::Alive);
    liveness.map(|liveness| liveness.why.as_str())
}

fn problem(member: &MemberStatus) -> String {
    let problems: Vec<&str> = complaint(member).into_iter().chain(member.problem.as_deref()).collect();
    problems.join("; ")
}

/// For whom an epoch waits. All members do for a while, so it is no complaint by itself.
fn waits(epoch: &EpochStatus) -> String {
    match epoch.waits_for.as_slice() {
        [] => String::new(),
        names => format!(", not yet finished by {}", names.join(", ")),
    }
}

fn status_table(status: &ClusterStatus) -> String {
    let header = [
        "NODE", "STANDING", "SINCE", "STATE", "SINCE", "HINTS", "CLOCK", "BOOT", "VERSION", "PROTOCOL", "ZONE", "HTTP",
        "PROBLEM",
    ];
    let unknown = || "-".to_owned();
    let mut members: Vec<&MemberStatus> = status.members.iter().collect();
    members.sort_by(|one, other| one.member.name.cmp(&other.member.name));
    let rows = members.into_iter().map(|status| {
        let state = match status.state {
            MemberState::Itself => "self",
            MemberState::Connected => "connected",
            MemberState::Disconnected => "disconnected",
        };
        [
            status.member.name.clone(),
            status.liveness.as_ref().map_or_else(unknown, |liveness| standing(liveness.status).to_owned()),
            status.liveness.as_ref().map_or_else(unknown, |liveness| liveness.since.clone()),
            if status.leaving { format!("{state}, leaving") } else { state.to_owned() },
            status.since.clone().unwrap_or_else(unknown),
            status.hints.map_or_else(unknown, |hints| hints.records.to_string()),
            status.clock_offset_ms.map_or_else(unknown, |offset| format!("{offset:+} ms")),
            status.boot.map_or_else(unknown, |boot| boot.to_string()),
            status.version.clone().unwrap_or_else(unknown),
            status.protocol.map_or_else(unknown, spoken),
            status.member.zone.clone(),
            status.member.http.clone(),
            problem(status),
        ]
    });
    let (cluster, node, version) = (&status.cluster, &status.node, &status.ring_version);
    let (EpochStatus { epoch, since, .. }, waits) = (&status.epoch, waits(&status.epoch));
    let (members, upgrade) = (table(header, rows), upgrade_line(&status.protocol));
    let hints = hints_line(node, &status.hints) + &collisions_line(node, status.dot_collisions);
    let replication = replication_line(&status.replication);
    format!(
        "cluster {cluster} as {node} sees it, ring version {version}\nepoch {epoch} since {since}{waits}\n{upgrade}\n{members}{hints}\
         {replication}"
    )
}

/// Which partitions have too few replicas, and whether the cluster has too few nodes; nothing if all is as it should be.
fn replication_line(replication: &Replication) -> String {
    let Replication { n, data_nodes, wanted, under_replicated, fewest } = *replication;
    let mut text = String::new();
    if under_replicated > 0 {
        text += &format!(
            "\nALARM: {under_replicated} partitions have fewer than {wanted} replicas (the fewest: {fewest}); see `cartwheel cluster \
             moves`\n"
        );
    }
    if data_nodes < usize::from(n) {
        text += &format!("\nKeys have up to n={n} replicas, but {data_nodes} nodes can hold data: add nodes\n");
    }
    text
}

/// The versions of the protocol that a member speaks, and which of them is used.
fn spoken(Spoken { oldest, newest, used }: Spoken) -> String {
    match used {
        _ if oldest == newest => newest.to_string(),
        Some(used) => format!("{used} of {oldest}-{newest}"),
        None => format!("{oldest}-{newest}"),
    }
}

/// How far an upgrade has come; nothing from a node that does not say.
fn upgrade_line(ProtocolStatus { in_use, newest, waits_for }: &ProtocolStatus) -> String {
    match waits_for.as_slice() {
        _ if *in_use == 0 => String::new(),
        [] => format!("protocol version {in_use}\n"),
        names => {
            format!("protocol version {in_use}; version {newest} is used once {} speak it, too\n", names.join(", "))
        }
    }
}

/// What the node keeps for others; nothing if that is nothing.
fn hints_line(node: &str, hints: &Hints) -> String {
    let Hints { records, bytes, bytes_max, full } = hints;
    let kept = format!("{node} keeps {records} records ({bytes} bytes) for nodes that are away");
    match (full, records) {
        (true, _) => format!(
            "\nALARM: {kept}, which in part of it is all that it may ({bytes_max} bytes): further ones go to other nodes\n"
        ),
        (false, 0) => String::new(),
        (false, _) => format!("\n{kept}, of {bytes_max} bytes that it may\n"),
    }
}

/// The alarm for keys that came with two values of one version; nothing if none did.
fn collisions_line(node: &str, collisions: u64) -> String {
    match collisions {
        0 => String::new(),
        _ => format!(
            "\nALARM: {collisions} times since it started, {node} was sent two values of one version, and kept both: a disk is broken, or two \
             nodes run on copies of one data directory; the log names the keys\n"
        ),
    }
}

fn ring_table(ring: &Ring) -> String {
    let share = |at: usize| ring.owners.iter().filter(|&&owner| owner == at).count();
    let rows = ring.members.iter().enumerate().map(|(at, member)| {
        let owned = share(at);
        let percent = 100.0 * owned as f64 / f64::from(ring.partitions.max(1));
        [
            member.name.clone(),
            member.id.clone(),
            owned.to_string(),
            format!("{percent:.1}%"),
            member.zone.clone(),
            member.host.clone(),
            member.http.clone(),
        ]
    });
    let header = ["NODE", "ID", "PARTITIONS", "SHARE", "ZONE", "HOST", "HTTP"];
    format!("ring version {}, {} partitions\n\n{}", ring.version, ring.partitions, table(header, rows))
}

fn location_table(location: &Location) -> String {
    let rows = location.preference_list.iter().enumerate();
    let rows = rows.map(|(at, replica)| [(at + 1).to_string(), replica.node.clone(), replica.role.clone()]);
    let Location { token, partition, .. } = location;
    format!("token {token}, partition {partition}\n\n{}", table(["", "NODE", "ROLE"], rows))
}

/// Columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a".to_owned(), "bcd".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(["X", "Y"], rows.into_iter()), "X     Y\na     bcd\nlong\n");
    }
}
