//! Nodes that restart while the cluster changes: one that says that it is ready knows what holds.

mod harness;

use std::time::Duration;

use harness::grown::Grown;
use harness::raw::{get, put, set_bucket};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// As many of them are restarted.
const ROUNDS: usize = 3;
const KEYS: u32 = 60;

fn partitions_on_their_way(nodes: &Grown, through: &str) -> usize {
    nodes.moves(through)["transfers"].as_array().unwrap().len()
}

/// A strong write of a register goes to one coordinator alone, and a node that knows the homes of long ago chooses one that is none any more.
#[test]
fn a_restarted_node_that_is_ready_refuses_no_strong_request_though_partitions_moved_meanwhile() {
    let mut nodes = Grown::of(&NAMES);
    let settled = |nodes: &Grown| NAMES.iter().all(|name| partitions_on_their_way(nodes, name) == 0);
    nodes.eventually("all is on its target nodes", settled);
    let settings = set_bucket(&nodes.endpoint("a"), "registers", r#"{"conflict":"lww"}"#);
    assert_eq!(settings.status, 200, "{}", settings.text());

    let mut refused = Vec::new();
    for (round, name) in NAMES.into_iter().take(ROUNDS).enumerate() {
        let (through, other) = (NAMES[(round + 1) % 5], NAMES[(round + 2) % 5]);
        nodes.kill(name);
        nodes.done(through, &["weight", other, if round % 2 == 0 { "1000" } else { "100" }, "--yes"]);
        // The more has moved without it, the less it knows; what it holds itself waits for it.
        std::thread::sleep(Duration::from_secs(6));
        nodes.serve(name, &[]);
        nodes.wait_for(name);
        for key in 0..KEYS {
            let path = format!("/v1/kv/registers/{round}-{key}?consistency=strong");
            let written = put(&nodes.endpoint(name), &path, name);
            let read = get(&nodes.endpoint(name), &path);
            if (written.status, read.status) != (204, 200) {
                refused.push(format!("{name}: {} {}, {} {}", written.status, written.text(), read.status, read.text()));
            }
        }
        nodes.eventually("all is on its target nodes", settled);
    }
    assert!(refused.is_empty(), "{} of {} strong requests: {refused:#?}", refused.len(), 2 * KEYS * ROUNDS as u32);
}
