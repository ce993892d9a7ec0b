//! `cartwheel cluster drain`: prepares a node for being stopped.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cartwheel_client::{Client, ClusterStatus, Drain, LivenessStatus, MemberState};

use super::quorums;
use super::status::{NODE_WITHIN, first_response};
use crate::cli::DrainArgs;
use crate::terminal::error::CommandError;
use crate::terminal::exit::Exit;
use crate::terminal::output::show;

/// How long the node has to hand over its hints.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(5 * 60);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Drains a member, or ends that, and shows what it still keeps for others.
///
/// # Errors
/// If it is no member, cannot be reached, or must not be stopped.
pub(super) async fn drain(args: &DrainArgs) -> Result<ExitCode, CommandError> {
    let (request, within) = (&args.request, args.request.timeout.unwrap_or(NODE_WITHIN));
    let (any, status) = first_response(&request.endpoints, &request.endpoints.addresses(), within).await?;
    let member = status.members.iter().find(|status| status.member.name == args.member);
    let Some(member) = member else { return Err(CommandError::NoMember(args.member.clone())) };
    let client = request.endpoints.client_of([&member.member.http])?.with_timeout(within);
    if args.undo {
        let drain = client.set_drain(false).await?;
        show(request.format, &drain, |drain, _| format!("{} no longer drains\n", drain.node))?;
        return Ok(Exit::Done.into());
    }
    if !args.force {
        let ring = any.with_timeout(within).ring().await?;
        let away = away(&status, &args.member);
        let short = quorums::short_without(&ring, &[&away[..], &[args.member.as_str()]].concat());
        if short > 0 {
            let partitions = usize::try_from(ring.partitions).unwrap_or(usize::MAX);
            let away = away.into_iter().map(str::to_owned).collect();
            return Err(CommandError::StopsQuorums { member: args.member.clone(), away, short, partitions });
        }
    }
    let drain = wait(&client, client.set_drain(true).await?, args).await?;
    let is_done = drain.handed_over || args.no_wait;
    show(request.format, &drain, |drain, _| text(drain))?;
    Ok(if is_done { Exit::Done } else { Exit::NoQuorum }.into())
}

/// Waits until the node has handed over what it can.
async fn wait(client: &Client, mut drain: Drain, args: &DrainArgs) -> Result<Drain, CommandError> {
    let begun = Instant::now();
    let within = args.request.timeout.unwrap_or(HANDED_OVER_WITHIN);
    while !args.no_wait && !drain.handed_over && begun.elapsed() < within {
        tokio::time::sleep(ASK_EVERY).await;
        drain = client.drain().await?;
    }
    Ok(drain)
}

/// The other members that are away or about to be stopped.
fn away<'a>(status: &'a ClusterStatus, member: &str) -> Vec<&'a str> {
    let is_away = |of: &cartwheel_client::MemberStatus| {
        let is_down = of.liveness.as_ref().is_some_and(|liveness| liveness.status == LivenessStatus::Down);
        is_down || of.state == MemberState::Disconnected || of.draining
    };
    let others = status.members.iter().filter(|of| of.member.name != member);
    others.filter(|of| is_away(of)).map(|of| of.member.name.as_str()).collect()
}

fn text(drain: &Drain) -> String {
    let Drain { node, handed_over, hints, .. } = drain;
    let mut text = match handed_over {
        true => format!("{node} is drained and can be stopped; a restart ends it, and so does --undo\n"),
        false => format!("{node} drains, and still has hints to hand over; ask again with the same command\n"),
    };
    for owed in hints {
        let why = if owed.down {
            "which is down: they stay on its disk, and it must come back to hand them over"
        } else {
            "not yet handed over"
        };
        text += &format!("{node} keeps {} hints for {}, {why}\n", owed.records, owed.node);
    }
    text
}
