//! The table at the end.

use std::fmt::Write as _;
use std::time::Duration;

use crate::FaultsError;
use crate::judge::{EXPECTED, listed, total};
use crate::play::Played;
use crate::proof::Equality;
use crate::scenario::Scenario;
use crate::sides::Sides;
use crate::timing::Tails;

/// A scenario, and how far it came.
pub type Row = (Scenario, Result<Played, FaultsError>);

/// Whether all is as it should be: nothing to complain of, unless that is what the scenario is for.
pub fn is_good((scenario, played): &Row) -> bool {
    played.as_ref().is_ok_and(|played| played.outcome.complaints(&EXPECTED).is_empty() != scenario.is_canary())
}

/// What is not as it should be, a line for each scenario of which anything is to be said.
pub fn complaints(rows: &[Row]) -> String {
    let of_row = |row: &Row| match &row.1 {
        _ if is_good(row) => None,
        Err(error) => Some(format!("{}: could not be played: {error}", row.0.name())),
        Ok(_) if row.0.is_canary() => Some(format!("{}: nobody noticed", row.0.name())),
        Ok(played) => Some(format!("{}: {}", row.0.name(), played.outcome.complaints(&EXPECTED).join("; "))),
    };
    rows.iter().filter_map(of_row).collect::<Vec<_>>().join("\n")
}

/// The table, and beneath it what is to be said of single scenarios.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16}{:>8}{:>9}{:>9}{:>9}{:>7}{:>8}{:>6}{:>13}  {}\n",
        "SCENARIO", "UPDATES", "REFUSED", "GIVEN UP", "SILENT", "BLIND", "CARTS", "LOST", "EQUAL AFTER", "VERDICT"
    );
    for row in rows {
        let verdict = match (is_good(row), row.0.is_canary()) {
            (true, false) => "ok",
            (true, true) => "noticed",
            (false, false) => "FAILED",
            (false, true) => "NOT NOTICED",
        };
        let name = row.0.name();
        let _ = match &row.1 {
            Err(_) => writeln!(text, "{name:<16}{:>69}  {verdict}", "could not be played"),
            Ok(Played { outcome, .. }) => {
                let (counts, found) = (&outcome.counts, &outcome.found);
                writeln!(
                    text,
                    "{name:<16}{:>8}{:>9}{:>9}{:>9}{:>7}{:>8}{:>6}{:>13}  {verdict}",
                    counts.updates,
                    total(&counts.writes_refused),
                    counts.given_up,
                    counts.unreachable,
                    counts.blind,
                    found.carts,
                    found.missing.len(),
                    equal(&outcome.equality)
                )
            }
        };
    }
    text += LEGEND;
    text += &changes(rows);
    rows.iter().for_each(|row| text += &details(row));
    text
}

const LEGEND: &str = "
UPDATES were acknowledged. REFUSED: requests to write that were answered with an error, or not at all by a node within reach.
GIVEN UP: updates that no node took. SILENT: requests without an answer from a node that was made unreachable. BLIND: updates of
carts that could not be read first. LOST: acknowledged adds that are in no cart.
";

/// What changes of the members took.
fn changes(rows: &[Row]) -> String {
    let of_row = |(scenario, played): &Row| {
        let Played { change, tails: (reads, writes), .. } = played.as_ref().ok()?;
        let change = change.as_ref()?;
        let took = change.took.map_or_else(|| "-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        Some(format!(
            "{:<16}{took:>9}{:>10}{:>10}{:>13}{:>10}{:>20}{:>20}\n",
            scenario.name(),
            change.replicas,
            mib(Some(change.bytes_min)),
            mib(change.bytes_transferred),
            mib(change.bytes_compared),
            in_ms(reads),
            in_ms(writes),
        ))
    };
    let changed: String = rows.iter().filter_map(of_row).collect();
    if changed.is_empty() {
        return changed;
    }
    let head = format!(
        "\n{:<16}{:>9}{:>10}{:>10}{:>13}{:>10}{:>20}{:>20}\n",
        "CHANGE", "TOOK", "REPLICAS", "MINIMUM", "TRANSFERRED", "COMPARED", "READS' P99 MS", "WRITES' P99 MS"
    );
    head + &changed + CHANGES_LEGEND
}

const CHANGES_LEGEND: &str = "
TOOK: from the change to nothing being left to move, the deaths of nodes included. REPLICAS of partitions came to nodes that did not hold
them; MINIMUM: the MiB of their records. TRANSFERRED: MiB of records in bulk. COMPARED: MiB of messages that compared replicas and made them
equal, with the ordinary comparisons of that time. P99: what clients waited before, during and after, with all retries.
";

fn mib(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
}

fn in_ms(tails: &Tails) -> String {
    let ms = |tail: &Option<Duration>| tail.map_or_else(|| "-".to_owned(), |tail| tail.as_millis().to_string());
    tails.iter().map(ms).collect::<Vec<_>>().join(" / ")
}

fn equal(equality: &Equality) -> String {
    match equality {
        Equality::After(duration) => format!("{:.1} s", duration.as_secs_f64()),
        Equality::Not(_) => "never".to_owned(),
        Equality::NotAsked => "-".to_owned(),
    }
}

fn details((scenario, played): &Row) -> String {
    let mut text = format!("\n{}: ", scenario.name());
    let played = match played {
        Err(error) => return text + &format!("could not be played: {error}\n"),
        Ok(played) => played,
    };
    text += &played.done.join("; ");
    text.push('\n');
    let (writes, reads) = (&played.outcome.counts.writes_refused, &played.outcome.counts.reads_refused);
    for (what, kinds) in [("writes", writes), ("reads", reads)] {
        if !kinds.is_empty() {
            let _ = writeln!(text, "  {what} refused: {}", listed(kinds));
        }
    }
    if played.outcome.was_cut {
        let Sides { minority, majority } = played.outcome.counts.sides;
        let _ = writeln!(
            text,
            "  strong requests while cut: the minority refused {} reads and {} writes and answered {} and {}; the majority answered {} and {}",
            minority.reads_refused,
            minority.writes_refused,
            minority.reads,
            minority.writes,
            majority.reads,
            majority.writes
        );
    }
    let what = if scenario.is_canary() { "noticed" } else { "FAILED" };
    for complaint in played.outcome.complaints(&EXPECTED) {
        let _ = writeln!(text, "  {what}: {complaint}");
    }
    if let Some(remains) = &played.remains {
        let _ =
            writeln!(text, "  data and logs are in {} until the next run; the logs end with:", remains.dir.display());
        for (name, tail) in &remains.logs {
            let _ = writeln!(text, "  {name}:\n    {}", tail.replace('\n', "\n    "));
        }
    }
    text
}
