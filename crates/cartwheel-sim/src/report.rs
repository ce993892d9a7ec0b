//! The report on a failed seed.

use std::fmt::Write as _;

use cartwheel_core::value::key::Key;

use crate::options::Options;
use crate::run::{Report, RunSettings, run};

/// The most lines of the trace that are shown.
const LINES_MAX: usize = 120;

/// Runs a failed seed again and describes the failure: the violation, the options, the last events on the key in question, and what its replicas
/// held at that time.
///
/// `flags` are the flags that the replay command needs besides the seed.
pub fn describe(failed: &Report, settings: RunSettings, flags: &str) -> String {
    let mut text = String::new();
    let Some(failure) = &failed.failure else { return text };
    let _ = writeln!(text, "seed {} fails: {failure}", failed.seed);
    let _ = writeln!(
        text,
        "\noptions: {:#?}",
        if settings.takes_a_day { Options::draw_a_day(failed.seed) } else { Options::draw(failed.seed) }
    );
    let again = run(failed.seed, RunSettings { readable: true, until_us: Some(failure.at_us + 1), ..settings });
    let about: Vec<String> = again
        .trace
        .lines()
        .iter()
        .filter(|line| failure.key.as_ref().is_none_or(|key| concerns(&line.text, key)))
        .map(ToString::to_string)
        .collect();
    let skipped = about.len().saturating_sub(LINES_MAX);
    let _ =
        writeln!(text, "\nlast events{}:", failure.key.as_ref().map_or(String::new(), |key| format!(" on {key:?}")));
    about.iter().skip(skipped).for_each(|line| {
        let _ = writeln!(text, "{line}");
    });
    for (key, held) in &again.holdings {
        if failure.key.as_ref().is_none_or(|about| about == key) {
            let _ = writeln!(text, "\nat that time the homes of {key:?} held\n{held}");
        }
    }
    for history in failed.histories.iter().filter(|history| failure.key.as_ref() == Some(&history.key)) {
        let _ = writeln!(text, "\nwrites of the key in the whole run\n{}", history.describe_writes());
    }
    let _ = writeln!(text, "\nseed {} fails: {failure}", failed.seed);
    let _ = writeln!(text, "replay with: cargo run --release -p cartwheel-sim{flags} -- --seed {}", failed.seed);
    text
}

/// Whether a line concerns `key`, or something that affects all keys.
fn concerns(line: &str, key: &Key) -> bool {
    line.contains(&format!("{key:?} "))
        || line.ends_with(&format!("{key:?}"))
        || line.contains(&format!("{key:?},"))
        || !line.contains('/')
}
