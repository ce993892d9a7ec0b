//! `cartwheel cluster add`, `remove`, `replace`, `weight`, `zone` and `change`.

use std::process::ExitCode;

use cartwheel_client::{Client, ClusterStatus, Error as ClientError, MemberChange, MemberStatus, MembersPlan};
use indicatif::HumanBytes;
use serde_json::json;

use super::transfers::{self, size};
use crate::cli::ApplyArgs;
use crate::terminal::confirm::confirm;
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::{self, print, show};
use crate::terminal::table::table;

/// The maximum number of plans for one command, and a part of the message with which a node refuses an outdated plan.
const PLANS_MAX: usize = 5;
const CHANGED: &str = "the cluster has changed since this was planned";

/// The maximum number of partitions that a plan lists in a table.
const TRANSFERS_SHOWN: usize = 12;

/// Plans changes, shows the plan, and makes the changes if they are confirmed. A program gets one JSON or YAML document, the plan, at the end.
///
/// # Errors
/// If no node could answer, or the changes were refused.
pub(super) async fn change(mut changes: Vec<MemberChange>, apply: &ApplyArgs) -> Result<ExitCode, CommandError> {
    changes.extend(apply.force.then_some(MemberChange::Force));
    let client = apply.request.client()?;
    // The node that plans the change may be the one that is removed: then the client needs other nodes.
    client.learn_members().await?;
    // Only a replacement depends on the list of waiting nodes.
    let is_replacing = changes.iter().any(|change| matches!(change, MemberChange::Replace { .. }));
    let waiting = if is_replacing { client.transfers().await?.waiting } else { Vec::new() };
    let repeated = take_repeated(&mut changes, &client.cluster().await?, &waiting);
    for change in &repeated {
        output::note(already_made(change));
    }
    if changes.is_empty() && !apply.dry_run {
        return wait_for_repeated(&client, &repeated, apply).await;
    }
    let plan = client.plan_members(&changes).await?;
    let for_programs = apply.request.format.is_for_programs();
    if apply.dry_run || !for_programs {
        show(apply.request.format, &plan, plan_text)?;
    }
    if apply.dry_run {
        return Ok(Exit::Done.into());
    }
    if !apply.yes {
        if for_programs {
            return Err(CommandError::NotConfirmed);
        }
        if !confirm("Make this change?")? {
            print(b"Nothing was changed.\n")?;
            return Ok(Exit::Negative.into());
        }
    }
    let made = make(&client, &changes, plan, apply).await?;
    if !for_programs {
        print(b"Changed. Data is transferred in the background: see `cartwheel cluster transfers`.\n")?;
    }
    if apply.wait {
        transfers::wait(&client).await?;
    }
    if for_programs {
        show(apply.request.format, &MembersPlan { applied: true, ..made }, plan_text)?;
    } else if apply.wait {
        print(b"Every partition is on its target nodes.\n")?;
    }
    Ok(Exit::Done.into())
}

/// Makes changes as they were planned.
///
/// A node refuses the changes if the cluster has changed since the plan. The changes themselves can be the cause: the client repeats a
/// request that is not answered in time. With `--yes` the rest is planned again, since the node may just have learned of an earlier
/// change. Without `--yes` the user confirmed this plan, so a new one is not made.
async fn make(
    client: &Client,
    changes: &[MemberChange],
    mut plan: MembersPlan,
    apply: &ApplyArgs,
) -> Result<MembersPlan, CommandError> {
    for _ in 0..PLANS_MAX {
        match client.change_members(changes, &plan.version).await {
            Err(ClientError::Refused { message, .. }) if message.contains(CHANGED) => {
                let status = client.cluster().await?;
                if changes.iter().all(|change| is_made(change, &status)) {
                    return Ok(plan);
                }
                if !apply.yes {
                    break;
                }
                plan = client.plan_members(changes).await?;
            }
            made => return Ok(made?),
        }
    }
    Ok(client.change_members(changes, &plan.version).await?)
}

/// Removes and returns the changes that were already made. A user can thus repeat a change that was interrupted or that waits for a
/// dead node, also with `--force`. If a waiting node has the name of a member, the change refers to the waiting node.
fn take_repeated(changes: &mut Vec<MemberChange>, status: &ClusterStatus, waiting: &[String]) -> Vec<MemberChange> {
    let is_leaving = |name: &str| member(status, name).is_some_and(|status| status.leaving);
    let is_repeated = |change: &MemberChange| match change {
        MemberChange::Remove { node } => is_leaving(node),
        MemberChange::Replace { node, with } => {
            is_leaving(node) && is_made(change, status) && !waiting.iter().any(|name| name == with)
        }
        _ => false,
    };
    changes.extract_if(.., |change| is_repeated(change)).collect()
}

fn member<'a>(status: &'a ClusterStatus, name: &str) -> Option<&'a MemberStatus> {
    status.members.iter().find(|status| status.member.name == name)
}

/// Whether a node's status shows that a change was made.
fn is_made(change: &MemberChange, status: &ClusterStatus) -> bool {
    let is_gone = |name: &str| member(status, name).is_none_or(|status| status.leaving);
    let stays = |name: &str| member(status, name).filter(|status| !status.leaving);
    match change {
        MemberChange::Add { node, weight } => {
            stays(node).is_some_and(|status| weight.is_none_or(|weight| status.weight == weight))
        }
        MemberChange::Remove { node } => is_gone(node),
        MemberChange::Replace { node, with } => is_gone(node) && stays(with).is_some(),
        MemberChange::Weight { node, weight } => stays(node).is_some_and(|status| status.weight == *weight),
        MemberChange::Zone { node, zone, host } => stays(node).is_some_and(|status| {
            status.member.zone == *zone && host.as_ref().is_none_or(|host| status.member.host == *host)
        }),
        MemberChange::Address { node, peer_address, http_address } => stays(node).is_some_and(|status| {
            peer_address.as_ref().is_none_or(|addr| status.member.peers == *addr)
                && http_address.as_ref().is_none_or(|addr| status.member.http == *addr)
        }),
        MemberChange::Force => true,
    }
}

/// The note for a change that was already made.
fn already_made(change: &MemberChange) -> String {
    match change {
        MemberChange::Remove { node } => format!("{node} is already leaving"),
        MemberChange::Replace { node, with } => format!("{with} has already replaced {node}"),
        _ => String::new(),
    }
}

/// Handles a command whose changes were all made before: at most, the command waits for them.
async fn wait_for_repeated(
    client: &Client,
    repeated: &[MemberChange],
    apply: &ApplyArgs,
) -> Result<ExitCode, CommandError> {
    if apply.wait {
        transfers::wait(client).await?;
    }
    let outcome = json!({ "applied": true, "repeated": repeated, "transfers": [] });
    show(apply.request.format, &outcome, |_, _| match apply.wait {
        true => "Every partition is on its target nodes.\n".to_owned(),
        false => "The changes were made earlier: see `cartwheel cluster transfers`.\n".to_owned(),
    })?;
    Ok(Exit::Done.into())
}

fn plan_text(plan: &MembersPlan, _wide: bool) -> String {
    let mut text = format!("{} partitions change homes; {}.\n\n", plan.transfers.len(), copies(plan));
    for warning in &plan.warnings {
        text += &format!("WARNING: {warning}\n");
    }
    if !plan.warnings.is_empty() {
        text.push('\n');
    }
    if !plan.force_recovered.is_empty() {
        let rows = plan.force_recovered.iter().take(TRANSFERS_SHOWN);
        text += &table(
            ["FORCE-RECOVERED", "FROM"],
            rows.map(|recovery| [recovery.partition.to_string(), recovery.left.join(" ")]),
        );
        if plan.force_recovered.len() > TRANSFERS_SHOWN {
            text += &format!("... and {} more (--json lists all)\n", plan.force_recovered.len() - TRANSFERS_SHOWN);
        }
        text.push('\n');
    }
    let rows = plan.nodes.iter().map(|share| [share.node.clone(), share.before.to_string(), share.after.to_string()]);
    text += &table(["NODE", "REPLICAS NOW", "AFTER"], rows);
    text += &format!(
        "\nlargest deviation from a node's share: {:.2} partitions now, {:.2} after; avoidable repeats of nodes, hosts, zones: {}, {}, {} \
         now, {}, {}, {} after\n",
        plan.before.off_ideal,
        plan.after.off_ideal,
        plan.before.node_repeats,
        plan.before.host_repeats,
        plan.before.zone_repeats,
        plan.after.node_repeats,
        plan.after.host_repeats,
        plan.after.zone_repeats,
    );
    if !plan.transfers.is_empty() {
        let rows = plan.transfers.iter().take(TRANSFERS_SHOWN);
        let rows = rows.map(|transfer| {
            let bytes = size(transfer.bytes, transfer.estimated);
            [transfer.partition.to_string(), transfer.from.join(" "), transfer.to.join(" "), bytes]
        });
        text += &format!("\n{}", table(["PARTITION", "FROM", "TO", "COPIES"], rows));
    }
    if plan.transfers.len() > TRANSFERS_SHOWN {
        text += &format!("... and {} more (--json lists all)\n", plan.transfers.len() - TRANSFERS_SHOWN);
    }
    text
}

/// The amount of data that a plan copies.
fn copies(plan: &MembersPlan) -> String {
    let replicas = plan.replicas;
    match (plan.bytes.zip(plan.keys), plan.estimated) {
        _ if replicas == 0 => "nothing is copied".to_owned(),
        (None, _) => format!("{replicas} replicas are copied (no node reported their size)"),
        (Some((bytes, keys)), false) => {
            format!("{replicas} replicas are copied, with {keys} keys and {}", HumanBytes(bytes))
        }
        (Some((bytes, keys)), true) => format!(
            "{replicas} replicas are copied, with about {keys} keys and {} (an estimate: some of their nodes did not answer)",
            HumanBytes(bytes)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_were_already_made_are_left_out() {
        let member = |name: &str, leaving: bool| {
            json!({"name": name, "id": "", "zone": "", "host": "", "http": "", "resp": "", "peers": "", "weight": 100, "incarnation": "",
                   "leaving": leaving, "state": "connected"})
        };
        let status =
            json!({"cluster": "", "node": "a", "ring_version": "", "members": [member("a", false), member("b", true)]});
        let status: ClusterStatus = serde_json::from_value(status).unwrap();
        let remove = |name: &str| MemberChange::Remove { node: name.to_owned() };
        let replace = |name: &str, with: &str| MemberChange::Replace { node: name.to_owned(), with: with.to_owned() };
        let add = |name: &str| MemberChange::Add { node: name.to_owned(), weight: None };
        let split = |changes: &[MemberChange], waiting: &[&str]| {
            let (mut changes, waiting) =
                (changes.to_vec(), waiting.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
            (take_repeated(&mut changes, &status, &waiting), changes)
        };
        let (repeated, left) = split(&[remove("a"), remove("b"), MemberChange::Force], &[]);
        assert_eq!((repeated, left), (vec![remove("b")], vec![remove("a"), MemberChange::Force]));
        for (change, waiting, is_repeated) in [
            (replace("b", "a"), &[][..], true),
            (replace("gone, or misspelt", "a"), &[], false),
            (replace("b", "a"), &["a"], false),
            (replace("a", "b"), &[], false),
            (replace("b", "new"), &["new"], false),
            (add("a"), &[], false),
        ] {
            assert_eq!(split(std::slice::from_ref(&change), waiting).0.len(), usize::from(is_repeated), "{change:?}");
        }
        for (change, made) in [
            (remove("b"), true),
            (remove("gone"), true),
            (remove("a"), false),
            (replace("b", "a"), true),
            (replace("a", "b"), false),
            (add("a"), true),
            (add("b"), false),
            (MemberChange::Weight { node: "a".to_owned(), weight: 100 }, true),
            (MemberChange::Weight { node: "a".to_owned(), weight: 50 }, false),
            (MemberChange::Zone { node: "a".to_owned(), zone: String::new(), host: None }, true),
            (MemberChange::Zone { node: "a".to_owned(), zone: "x".to_owned(), host: None }, false),
            (MemberChange::Force, true),
        ] {
            assert_eq!(is_made(&change, &status), made, "{change:?}");
        }
    }
}
