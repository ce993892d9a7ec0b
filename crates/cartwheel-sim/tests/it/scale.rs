//! A thousand nodes: the cost of gossip while nothing changes, and how soon a change of the members is known everywhere.

use std::time::Duration;

use cartwheel_sim::scale::{Phase, Scale, run};

/// The bytes that a node may send, and receive, in a second while nothing changes.
const QUIET_BYTES_MAX: u64 = 10_000;
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

fn holds(phase: &Phase) {
    assert!(phase.known_after.is_some_and(|after| after <= KNOWN_WITHIN), "{phase}");
    assert!(phase.quiet.worst_sent < QUIET_BYTES_MAX && phase.quiet.worst_received < QUIET_BYTES_MAX, "{phase}");
}

#[test]
fn a_change_reaches_a_thousand_nodes_soon_and_idle_gossip_is_cheap() {
    let figures = run(Scale::of(1_000, 1));
    println!("{figures}");
    assert_eq!((figures.whole.up, figures.part.up), (1_000, 900));
    holds(&figures.whole);
    holds(&figures.part);
    assert!(figures.epochs > 0, "epochs end: {figures}");
}
