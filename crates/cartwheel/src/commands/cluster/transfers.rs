//! `cartwheel cluster transfers`, and the progress that `--wait` shows.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use cartwheel_client::{Client, Transfer, Transfers};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::tracker::{Tracker, TransferProgress};
use crate::cli::RequestArgs;
use crate::terminal::error::CommandError;
use crate::terminal::output::{self, show};
use crate::terminal::table::table;

/// The time between two requests for the transfers.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// The shortest time between two lines if the output is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The number of successive responses that must show no transfer: a node may not know yet of a change that was just made.
const POLLS_SETTLED: u32 = 3;
/// The longest time without a response from any node. A shorter gap is not an error, since the node may be restarting.
const SILENT_FOR_MAX: Duration = Duration::from_secs(30);
/// The maximum number of transfers listed below the bar.
const LISTED_MAX: usize = 8;
/// The bar's length in its own units.
const BAR_LEN: u64 = 1_000;

/// Shows the transfers; with `waits`, waits first until none is left.
///
/// # Errors
/// If no node could answer.
pub(super) async fn run(request: &RequestArgs, waits: bool) -> Result<ExitCode, CommandError> {
    let client = request.client()?;
    if waits {
        client.learn_members().await?;
        wait(&client).await?;
    }
    show(request.format, &client.transfers().await?, transfers_text)?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until all data is at its target placement, and shows the progress: as a bar on a terminal, otherwise as occasional lines.
///
/// # Errors
/// If no node answers for [`SILENT_FOR_MAX`].
pub(super) async fn wait(client: &Client) -> Result<(), CommandError> {
    let on_terminal = io::stderr().is_terminal();
    let target = if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(BAR_LEN), target);
    bar.set_style(ProgressStyle::with_template("{bar:30} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
    let begun = Instant::now();
    let (mut tracker, mut settled, mut answered_at) = (Tracker::default(), 0, begun);
    let mut lines = Lines::default();
    while settled < POLLS_SETTLED {
        let text = match client.transfers().await {
            Ok(transfers) => {
                answered_at = Instant::now();
                let progress = tracker.update(begun.elapsed(), &transfers);
                settled = if transfers.transfers.is_empty() && transfers.leaving.is_empty() { settled + 1 } else { 0 };
                bar.set_position((progress.done() * BAR_LEN as f64) as u64);
                if !on_terminal && settled == 0 {
                    let TransferProgress { arrived, partitions, .. } = progress;
                    lines.note(
                        format!("{arrived} of {partitions} partitions{}", states_text(&transfers)),
                        Instant::now(),
                    );
                }
                [progress_text(&progress), states_text(&transfers)].concat() + &list(&transfers, on_terminal)
            }
            Err(error) if answered_at.elapsed() > SILENT_FOR_MAX => {
                bar.finish_and_clear();
                return Err(error.into());
            }
            Err(error) => {
                let text = format!("no node answers, retrying: {error}");
                if !on_terminal {
                    lines.note("no node answers, retrying".to_owned(), Instant::now());
                }
                text
            }
        };
        bar.set_message(text);
        tokio::time::sleep(POLL_EVERY).await;
    }
    bar.finish_and_clear();
    Ok(())
}

/// The progress lines if the output is not a terminal. A line is written if it differs from the last one, at most every [`LINE_EVERY`].
#[derive(Debug, Default)]
struct Lines {
    last: Option<(Instant, String)>,
}

impl Lines {
    fn note(&mut self, line: String, now: Instant) {
        if self.is_due(&line, now) {
            output::note(&line);
            self.last = Some((now, line));
        }
    }

    fn is_due(&self, line: &str, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|(at, last)| last != line && now.duration_since(*at) >= LINE_EVERY)
    }
}

fn progress_text(progress: &TransferProgress) -> String {
    let TransferProgress { arrived, partitions, copied, bytes, rate, left } = *progress;
    let mut text = format!("{arrived} of {partitions} partitions");
    if bytes > 0 {
        text += &format!(", {} of {}", HumanBytes(copied), HumanBytes(bytes));
    }
    if let Some(rate) = rate {
        text += &format!(", {}/s", HumanBytes(rate as u64));
    }
    if let Some(left) = left.filter(|left| !left.is_zero()) {
        text += &format!(", {} left", HumanDuration(left));
    }
    text
}

/// The number of transfers in each state, and the nodes that they wait for.
fn states_text(transfers: &Transfers) -> String {
    let count = |state: &str| transfers.transfers.iter().filter(|transfer| transfer.state == state).count();
    let states =
        [("copying", count("copying")), ("joint", count("joint")), ("handing over", transfers.retired_replicas.len())];
    let states: Vec<String> =
        states.into_iter().filter(|&(_, count)| count > 0).map(|(state, count)| format!("{count} {state}")).collect();
    let mut text = if states.is_empty() { String::new() } else { format!("; {}", states.join(", ")) };
    let awaited = transfers.transfers.iter().map(|transfer| &transfer.waits_for);
    let awaited = awaited.chain(transfers.retired_replicas.iter().map(|replica| &replica.waits_for)).flatten();
    let mut silent: Vec<&str> = awaited.map(String::as_str).collect();
    silent.sort_unstable();
    silent.dedup();
    if !silent.is_empty() {
        text += &format!("; waiting for {}", down(&silent));
    }
    if transfers.transfers.is_empty() && !transfers.leaving.is_empty() {
        text += &format!("; {} is handing over its last data", transfers.leaving.join(", "));
    }
    text
}

fn down(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name} (down)")).collect::<Vec<_>>().join(", ")
}

/// The first transfers, each with its state. Transfers that wait for a node come first, then joint ones, then those that have begun.
fn list(transfers: &Transfers, on_terminal: bool) -> String {
    if !on_terminal {
        return String::new();
    }
    let mut listed: Vec<&Transfer> = transfers.transfers.iter().collect();
    let order = |transfer: &&Transfer| {
        (transfer.waits_for.is_empty(), transfer.state != "joint", transfer.copied_bytes == Some(0))
    };
    listed.sort_by_key(order);
    let line = |transfer: &Transfer| {
        let is_new = |home: &&String| !transfer.from.contains(home);
        let new_homes: Vec<&str> = transfer.to.iter().filter(is_new).map(String::as_str).collect();
        let to = if new_homes.is_empty() { String::new() } else { format!(" to {}", new_homes.join(", ")) };
        format!("\n  partition {}{to}: {}, {}", transfer.partition, state(transfer), copied(transfer))
    };
    listed.into_iter().take(LISTED_MAX).map(line).collect()
}

/// The state of a transfer, and the nodes that it waits for.
fn state(transfer: &Transfer) -> String {
    match (transfer.waits_for.as_slice(), transfer.state.as_str()) {
        ([], "joint") => "joint".to_owned(),
        (silent, state) => waiting(state, silent),
    }
}

/// A state, and the nodes that it waits for.
fn waiting(state: &str, silent: &[String]) -> String {
    let silent: Vec<&str> = silent.iter().map(String::as_str).collect();
    if silent.is_empty() { state.to_owned() } else { format!("{state}, waiting for {}", down(&silent)) }
}

/// The data that the new replicas already hold, of the data that they are to hold.
fn copied(transfer: &Transfer) -> String {
    match transfer.bytes {
        Some(0) => "nothing to copy".to_owned(),
        bytes => format!("{} of {}", size(transfer.copied_bytes, false), size(bytes, transfer.estimated)),
    }
}

/// An amount of data, or `?` if it is unknown.
pub(super) fn size(bytes: Option<u64>, estimated: bool) -> String {
    let about = if estimated { "~" } else { "" };
    bytes.map_or_else(|| "?".to_owned(), |bytes| format!("{about}{}", HumanBytes(bytes)))
}

fn transfers_text(transfers: &Transfers, wide: bool) -> String {
    let named = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!("{what}: {}\n", names.join(", ")),
    };
    let mut text = match transfers.transfers.len() {
        0 => "Every partition is on its target nodes.\n".to_owned(),
        count => format!(
            "{count} of {} partitions are in transfer, with {} of {} copied.\n",
            transfers.partitions,
            size(transfers.copied_bytes, false),
            size(transfers.bytes, transfers.estimated)
        ),
    };
    text += &named("leaving", &transfers.leaving);
    text += &named("waiting to be added", &transfers.waiting);
    let under_way = transfers.transfers.iter().map(|transfer| {
        [
            transfer.partition.to_string(),
            transfer.config_version.clone(),
            transfer.from.join(" "),
            transfer.to.join(" "),
            copied(transfer),
            state(transfer),
        ]
    });
    let retired_replicas = transfers.retired_replicas.iter().map(|replica| {
        let none = || "-".to_owned();
        let state = waiting("handing over", &replica.waits_for);
        [replica.partition.to_string(), none(), replica.node.clone(), none(), none(), state]
    });
    if !transfers.transfers.is_empty() || !transfers.retired_replicas.is_empty() {
        let rows = under_way.chain(retired_replicas);
        let rows_and_header = if wide {
            table(["PARTITION", "CONFIG VERSION", "FROM", "TO", "COPIED", "STATE"], rows)
        } else {
            let rows = rows.map(|[partition, _, _, to, copied, state]| [partition, to, copied, state]);
            table(["PARTITION", "TO", "COPIED", "STATE"], rows)
        };
        text += &format!("\n{rows_and_header}");
    }
    text
}

#[cfg(test)]
mod tests {
    use cartwheel_client::RetiredReplica;

    use super::*;

    fn transfer(partition: u32, state: &str, waits_for: &[&str]) -> Transfer {
        Transfer {
            partition,
            config_version: "0".to_owned(),
            from: vec!["a".to_owned(), "b".to_owned()],
            to: vec!["a".to_owned(), "c".to_owned()],
            state: state.to_owned(),
            keys: Some(10),
            bytes: Some(2_048),
            copied_keys: Some(5),
            copied_bytes: Some(1_024),
            estimated: false,
            waits_for: waits_for.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn transfers() -> Transfers {
        Transfers {
            version: String::new(),
            partitions: 256,
            transfers: vec![
                transfer(1, "copying", &[]),
                transfer(2, "joint", &[]),
                transfer(3, "copying", &["node-2"]),
            ],
            bytes: Some(6_144),
            copied_bytes: Some(3_072),
            estimated: true,
            retired_replicas: vec![RetiredReplica {
                partition: 9,
                node: "b".to_owned(),
                waits_for: vec!["node-2".to_owned()],
            }],
            leaving: vec!["b".to_owned()],
            waiting: vec![],
        }
    }

    #[test]
    fn every_transfer_shows_its_state_and_the_nodes_it_waits_for() {
        let text = transfers_text(&transfers(), true);
        let line = |partition: &str| text.lines().find(|line| line.starts_with(partition)).unwrap();
        assert!(line("3 of").ends_with("in transfer, with 3.00 KiB of ~6.00 KiB copied."), "{text}");
        assert!(line("1 ").ends_with("1.00 KiB of 2.00 KiB  copying"), "{text}");
        assert!(line("2 ").ends_with("joint"), "{text}");
        assert!(line("3  ").ends_with("copying, waiting for node-2 (down)"), "{text}");
        assert!(line("9 ").contains("b") && line("9 ").ends_with("handing over, waiting for node-2 (down)"), "{text}");
        let unknown = Transfer { bytes: None, copied_bytes: None, ..transfer(1, "copying", &[]) };
        assert_eq!(copied(&unknown), "? of ?");
        assert_eq!(copied(&Transfer { bytes: Some(0), ..unknown }), "nothing to copy");
    }

    #[test]
    fn a_line_is_written_if_the_text_has_changed() {
        let now = Instant::now();
        let lines = Lines { last: Some((now, "1 of 2".to_owned())) };
        assert!(Lines::default().is_due("1 of 2", now));
        assert!(!lines.is_due("1 of 2", now + 10 * LINE_EVERY));
        assert!(!lines.is_due("2 of 2", now));
        assert!(lines.is_due("2 of 2", now + LINE_EVERY));
    }

    #[test]
    fn a_line_shows_the_progress_and_the_list_begins_with_waiting_transfers() {
        let progress = TransferProgress {
            arrived: 5,
            partitions: 8,
            copied: 3_072,
            bytes: 6_144,
            rate: Some(1_024.0),
            left: Some(Duration::from_secs(3)),
        };
        assert_eq!(progress_text(&progress), "5 of 8 partitions, 3.00 KiB of 6.00 KiB, 1.00 KiB/s, 3 seconds left");
        assert_eq!(states_text(&transfers()), "; 2 copying, 1 joint, 1 handing over; waiting for node-2 (down)");
        let listed = list(&transfers(), true);
        let first = "\n  partition 3 to c: copying, waiting for node-2 (down), 1.00 KiB of 2.00 KiB";
        assert!(listed.starts_with(first), "{listed}");
        assert_eq!((listed.lines().count(), list(&transfers(), false).as_str()), (4, ""));
        let last = Transfers { transfers: vec![], retired_replicas: vec![], ..transfers() };
        assert_eq!(states_text(&last), "; b is handing over its last data");
    }
}
