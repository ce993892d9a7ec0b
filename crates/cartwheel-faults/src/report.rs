//! The report at the end of a run.

use std::fmt::Write as _;
use std::time::Duration;

use crate::FaultsError;
use crate::judge::{EXPECTED, list_counts, total};
use crate::proof::Equality;
use crate::runner::ScenarioResult;
use crate::scenario::Scenario;
use crate::sides::Sides;
use crate::timing::Tails;

/// A scenario and its result.
pub type Row = (Scenario, Result<ScenarioResult, FaultsError>);

/// Whether a scenario has no violations, or has some if it is a canary.
pub fn is_good((scenario, result): &Row) -> bool {
    result.as_ref().is_ok_and(|result| result.outcome.violations(&EXPECTED).is_empty() != scenario.is_canary())
}

/// The violations of all scenarios, one line for each scenario that is not good.
pub fn violations(rows: &[Row]) -> String {
    let of_row = |row: &Row| match &row.1 {
        _ if is_good(row) => None,
        Err(error) => Some(format!("{}: cannot be run: {error}", row.0.name())),
        Ok(_) if row.0.is_canary() => Some(format!("{}: no violation was detected", row.0.name())),
        Ok(result) => Some(format!("{}: {}", row.0.name(), result.outcome.violations(&EXPECTED).join("; "))),
    };
    rows.iter().filter_map(of_row).collect::<Vec<_>>().join("\n")
}

/// The report: a table of all scenarios, the changes of the members, and the details of each scenario.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16}{:>8}{:>9}{:>11}{:>13}{:>7}{:>8}{:>6}{:>13}  {}\n",
        "SCENARIO",
        "UPDATES",
        "REFUSED",
        "ABANDONED",
        "UNREACHABLE",
        "BLIND",
        "CARTS",
        "LOST",
        "EQUAL AFTER",
        "VERDICT"
    );
    for row in rows {
        let verdict = match (is_good(row), row.0.is_canary()) {
            (true, false) => "ok",
            (true, true) => "detected",
            (false, false) => "FAILED",
            (false, true) => "NOT DETECTED",
        };
        let name = row.0.name();
        let _ = match &row.1 {
            Err(_) => writeln!(text, "{name:<16}{:>75}  {verdict}", "not run"),
            Ok(ScenarioResult { outcome, .. }) => {
                let (counts, found) = (&outcome.counts, &outcome.found);
                writeln!(
                    text,
                    "{name:<16}{:>8}{:>9}{:>11}{:>13}{:>7}{:>8}{:>6}{:>13}  {verdict}",
                    counts.updates,
                    total(&counts.writes_refused),
                    counts.abandoned,
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
UPDATES: acknowledged updates of carts. REFUSED: write requests that failed with an error, or got no response from a reachable node.
ABANDONED: updates that no node accepted. UNREACHABLE: unanswered requests to a node that was made unreachable. BLIND: updates of
carts that could not be read first. LOST: acknowledged adds that are in no cart.
";

/// The table of the changes of the members.
fn changes(rows: &[Row]) -> String {
    let of_row = |(scenario, result): &Row| {
        let ScenarioResult { change, tails: (reads, writes), .. } = result.as_ref().ok()?;
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
TOOK: from the change to the end of the last transfer, kills of nodes included. REPLICAS: copied to new homes. MINIMUM: MiB of their
records. TRANSFERRED: MiB of records sent in bulk. COMPARED: MiB of messages that compared replicas and made them equal, ordinary
anti-entropy included. P99: latency of the clients before, during and after, with all retries.
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
        Equality::NotChecked => "-".to_owned(),
    }
}

fn details((scenario, result): &Row) -> String {
    let mut text = format!("\n{}: ", scenario.name());
    let result = match result {
        Err(error) => return text + &format!("cannot be run: {error}\n"),
        Ok(result) => result,
    };
    text += &result.done.join("; ");
    text.push('\n');
    let (writes, reads) = (&result.outcome.counts.writes_refused, &result.outcome.counts.reads_refused);
    for (what, counts_by_kind) in [("writes", writes), ("reads", reads)] {
        if !counts_by_kind.is_empty() {
            let _ = writeln!(text, "  {what} refused: {}", list_counts(counts_by_kind));
        }
    }
    if result.outcome.was_cut {
        let Sides { minority, majority } = result.outcome.counts.sides;
        let _ = writeln!(
            text,
            "  strong requests during the cut: the minority side refused {} reads and {} writes and answered {} and {}; the majority side answered {} and {}",
            minority.reads_refused,
            minority.writes_refused,
            minority.reads,
            minority.writes,
            majority.reads,
            majority.writes
        );
    }
    let what = if scenario.is_canary() { "detected" } else { "FAILED" };
    for violation in result.outcome.violations(&EXPECTED) {
        let _ = writeln!(text, "  {what}: {violation}");
    }
    if let Some(kept) = &result.kept {
        let _ = writeln!(text, "  data and logs are in {} until the next run; the logs end with:", kept.dir.display());
        for (name, tail) in &kept.logs {
            let _ = writeln!(text, "  {name}:\n    {}", tail.replace('\n', "\n    "));
        }
    }
    text
}
