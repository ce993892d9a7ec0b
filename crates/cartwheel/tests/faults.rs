//! Faults on real processes, a few seconds each. `just faults` plays them at full length, and says more.

use std::io::Write as _;
use std::path::PathBuf;

use cartwheel_faults::judge::total;
use cartwheel_faults::leftovers;
use cartwheel_faults::network::Network;
use cartwheel_faults::play::Stage;
use cartwheel_faults::report::{self, Row};
use cartwheel_faults::scenario::{Pace, Scenario};

/// So many clusters at the same time: they wait more than they work.
const AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_refuses_a_write_or_loses_an_add() {
    leftovers::remove().unwrap();
    if let Some(why) = Network::unavailable() {
        say(&format!("\n*** SKIPPED: no network namespaces can be made here, so faults are not tested: {why} ***\n"));
        return;
    }
    let stage = Stage { bin: PathBuf::from(env!("CARGO_BIN_EXE_cartwheel")), nodes: 5, pace: Pace::SHORT };
    let scenarios = [&Scenario::SHORT[..], &Scenario::CANARIES].concat();
    let mut rows = stage.play_all(&scenarios, AT_ONCE).await;
    say(&format!("\n{}", report::table(&rows)));
    let canaries = rows.split_off(Scenario::SHORT.len());
    canaries.iter().for_each(was_noticed);
    let complaints = report::complaints(&rows);
    assert!(complaints.is_empty(), "see the table above:\n{complaints}");
}

/// What goes wrong on purpose must be seen to, or the others' success means nothing.
fn was_noticed((scenario, played): &Row) {
    let outcome = &played.as_ref().unwrap().outcome;
    let (refused, lost) = (total(&outcome.counts.writes_refused), outcome.found.missing.len());
    match scenario {
        Scenario::KillMost => assert!(refused > 0 && lost == 0, "{outcome:?}"),
        Scenario::LoseOnlyCopy => assert!(lost > 0, "{outcome:?}"),
        other => panic!("{} is no canary", other.name()),
    }
}

/// Tells whoever runs the tests, also if they succeed: what is printed by a macro is shown only of a test that fails.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}
