//! `cartwheel cluster add`, `remove`, `replace`, `weight`, `zone` and `moves`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use cartwheel_client::{Client, MemberChange, MembersPlan, Moves};
use indicatif::{ProgressBar, ProgressStyle};

use super::{client, show, table};
use crate::cli::{ApplyArgs, AskArgs};
use crate::keys::{Error, print};

/// How often it is asked how far the data is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For so many looks in a row everything must be where it is wished: a change that has just been made is not known everywhere.
const LOOKS_SETTLED: u32 = 3;
/// How many partitions a plan lists for people.
const MOVES_SHOWN: usize = 12;

/// Plans changes, shows what they lead to, and makes them if that is wanted.
///
/// # Errors
/// If no node could answer, or the changes were refused.
pub(super) async fn change(changes: Vec<MemberChange>, apply: &ApplyArgs) -> Result<ExitCode, Error> {
    let client = client(&apply.ask)?;
    let plan = client.plan_members(&changes).await?;
    show(&apply.ask, &plan, plan_text)?;
    if apply.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !apply.yes && !agreed()? {
        print(b"Nothing was changed.\n")?;
        return Ok(ExitCode::FAILURE);
    }
    client.change_members(&changes, &plan.version).await?;
    if !apply.ask.json {
        print(b"Done. Data moves in the background: see `cartwheel cluster moves`.\n")?;
    }
    if apply.wait { wait(&client).await } else { Ok(ExitCode::SUCCESS) }
}

/// Shows what is on its way; with `wait` until nothing is.
///
/// # Errors
/// If no node could answer.
pub(super) async fn moves(ask: &AskArgs, waits: bool) -> Result<ExitCode, Error> {
    let client = client(ask)?;
    if waits {
        return wait(&client).await;
    }
    show(ask, &client.moves().await?, moves_text)?;
    Ok(ExitCode::SUCCESS)
}

fn agreed() -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        print(b"Say --yes to make this change.\n")?;
        return Ok(false);
    }
    print(b"Make this change? [y/N] ")?;
    io::stdout().flush().map_err(|error| Error::Io("write the question", error))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Error::Io("read the answer", error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn wait(client: &Client) -> Result<ExitCode, Error> {
    let style = "{bar:30} {pos}/{len} partitions on their way have come, {elapsed}, {eta} left {msg}";
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
    let (mut most, mut settled) = (0, 0);
    while settled < LOOKS_SETTLED {
        let moves = client.moves().await?;
        let left = moves.moves.len() as u64;
        most = most.max(left);
        bar.set_length(most);
        bar.set_position(most - left);
        bar.set_message(waits_for(&moves));
        settled = if left == 0 && moves.leaving.is_empty() { settled + 1 } else { 0 };
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bar.finish_and_clear();
    print(b"Every partition is where it is wished.\n")?;
    Ok(ExitCode::SUCCESS)
}

fn waits_for(moves: &Moves) -> String {
    let mut names: Vec<&str> = moves.moves.iter().flat_map(|moving| &moving.waits_for).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { String::new() } else { format!("(waits for {})", names.join(", ")) }
}

fn plan_text(plan: &MembersPlan) -> String {
    let mut text =
        format!("{} of the partitions get other homes; {} replicas are copied.\n\n", plan.moves.len(), plan.replicas);
    let rows = plan.nodes.iter().map(|share| [share.node.clone(), share.before.to_string(), share.after.to_string()]);
    text += &table(["NODE", "REPLICAS NOW", "THEN"], rows);
    text += &format!(
        "\nfurthest from its share: {:.2} partitions now, {:.2} then; avoidable repeats of nodes, hosts, zones: {}, {}, {} now, \
         {}, {}, {} then\n",
        plan.before.off_ideal,
        plan.after.off_ideal,
        plan.before.node_repeats,
        plan.before.host_repeats,
        plan.before.zone_repeats,
        plan.after.node_repeats,
        plan.after.host_repeats,
        plan.after.zone_repeats,
    );
    if !plan.moves.is_empty() {
        let rows = plan.moves.iter().take(MOVES_SHOWN);
        let rows = rows.map(|moved| [moved.partition.to_string(), moved.from.join(" "), moved.to.join(" ")]);
        text += &format!("\n{}", table(["PARTITION", "FROM", "TO"], rows));
    }
    if plan.moves.len() > MOVES_SHOWN {
        text += &format!("... and {} more (--json lists all)\n", plan.moves.len() - MOVES_SHOWN);
    }
    text
}

fn moves_text(moves: &Moves) -> String {
    let named = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!("{what}: {}\n", names.join(", ")),
    };
    let mut text = match moves.moves.len() {
        0 => "Every partition is where it is wished.\n".to_owned(),
        count => format!("{count} of {} partitions are on their way.\n", moves.partitions),
    };
    text += &named("leaving", &moves.leaving);
    text += &named("waiting to be let in", &moves.waiting);
    if !moves.moves.is_empty() {
        let rows = moves.moves.iter().map(|moving| {
            let waits = if moving.waits_for.is_empty() { "-".to_owned() } else { moving.waits_for.join(" ") };
            [
                moving.partition.to_string(),
                moving.step.clone(),
                moving.state.clone(),
                moving.from.join(" "),
                moving.to.join(" "),
                waits,
            ]
        });
        text += &format!("\n{}", table(["PARTITION", "STEP", "STATE", "FROM", "TO", "WAITS FOR"], rows));
    }
    text
}
