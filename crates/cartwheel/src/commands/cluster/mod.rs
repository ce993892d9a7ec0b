//! `cartwheel cluster`: shows a node's view of its cluster and changes the members, over HTTP.

mod drain;
mod health;
mod members;
mod quorums;
mod replicas;
mod status;
mod tracker;
mod transfers;
mod watch;

use std::process::ExitCode;

use cartwheel_client::{Location, Member, MemberChange, Ring};

use crate::cli::{ClusterCommand, LocateArgs, StatusArgs};
use crate::terminal::error::CommandError;
use crate::terminal::output::show;
use crate::terminal::table::table;

/// Runs a cluster command, and shows the response.
///
/// # Errors
/// If no node could answer.
pub async fn run(command: &ClusterCommand) -> Result<ExitCode, CommandError> {
    match command {
        ClusterCommand::Status(StatusArgs { watch: None, request }) => status::status(request).await,
        ClusterCommand::Status(StatusArgs { watch: Some(every), request }) => watch::watch(request, *every).await,
        ClusterCommand::Health(args) => health::health(args).await,
        ClusterCommand::Drain(args) => drain::drain(args).await,
        ClusterCommand::Ring(args) => {
            let ring = args.client()?.ring().await?;
            show(args.format, &ring, ring_table)?;
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
        ClusterCommand::Transfers { wait, request } => transfers::run(request, *wait).await,
        ClusterCommand::Locate(LocateArgs { bucket, key, request }) => {
            let location = request.client()?.locate(bucket, key).await?;
            show(request.format, &location, location_table)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn ring_table(ring: &Ring, wide: bool) -> String {
    let owned = |at: usize| ring.owners.iter().filter(|&&owner| owner == at).count();
    let share = |at: usize| format!("{:.1}%", 100.0 * owned(at) as f64 / f64::from(ring.partitions.max(1)));
    let members = || ring.members.iter().enumerate();
    let head = format!("ring version {}, {} partitions\n\n", ring.version, ring.partitions);
    if !wide {
        let row = |(at, member): (usize, &Member)| {
            [member.name.clone(), owned(at).to_string(), share(at), member.zone.clone(), member.http.clone()]
        };
        return head + &table(["NAME", "PARTITIONS", "SHARE", "ZONE", "ADDRESS"], members().map(row));
    }
    let row = |(at, member): (usize, &Member)| {
        let Member { name, id, zone, host, http, .. } = member.clone();
        [name, id, owned(at).to_string(), share(at), zone, host, http]
    };
    head + &table(["NAME", "ID", "PARTITIONS", "SHARE", "ZONE", "HOST", "ADDRESS"], members().map(row))
}

fn location_table(location: &Location, _wide: bool) -> String {
    let rows = location.preference_list.iter().enumerate();
    let rows = rows.map(|(at, replica)| [(at + 1).to_string(), replica.node.clone(), replica.role.clone()]);
    let Location { token, partition, .. } = location;
    format!("token {token}, partition {partition}\n\n{}", table(["", "NODE", "ROLE"], rows))
}
