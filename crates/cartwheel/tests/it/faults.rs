//! Fault scenarios on real processes, a few seconds each: no write is refused and no add is lost. `just faults` runs them at full length.

use std::io::Write as _;
use std::path::PathBuf;

use cartwheel_faults::cleanup;
use cartwheel_faults::judge::total;
use cartwheel_faults::network::Network;
use cartwheel_faults::report::{self, Row};
use cartwheel_faults::runner::Runner;
use cartwheel_faults::scenario::{Pace, Scenario};

/// The number of clusters that run at the same time. They wait more than they compute.
const AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_causes_a_refused_write_or_a_lost_add() {
    cleanup::remove().unwrap();
    if let Some(why) = Network::unavailable() {
        say(&format!("\n*** SKIPPED: no network namespaces can be made here, so faults are not tested: {why} ***\n"));
        return;
    }
    let runner = Runner { bin: PathBuf::from(env!("CARGO_BIN_EXE_cartwheel")), nodes: 5, pace: Pace::SHORT };
    let scenarios = [&Scenario::SHORT[..], &Scenario::CANARIES].concat();
    let mut rows = runner.run_all(&scenarios, AT_ONCE).await;
    say(&format!("\n{}", report::table(&rows)));
    let canaries = rows.split_off(Scenario::SHORT.len());
    canaries.iter().for_each(assert_detected);
    let violations = report::violations(&rows);
    assert!(violations.is_empty(), "see the table above:\n{violations}");
}

/// Checks that the canaries have violations; otherwise the success of the other scenarios proves nothing.
fn assert_detected((scenario, result): &Row) {
    let outcome = &result.as_ref().unwrap().outcome;
    let (refused, lost) = (total(&outcome.counts.writes_refused), outcome.found.missing.len());
    match scenario {
        Scenario::KillMost => assert!(refused > 0 && lost == 0, "{outcome:?}"),
        Scenario::LoseOnlyCopy => assert!(lost > 0, "{outcome:?}"),
        other => panic!("{} is not a canary", other.name()),
    }
}

/// Writes to standard error even if the test succeeds. The output of a print macro is shown only for tests that fail.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}
