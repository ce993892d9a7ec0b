//! A node that restarts while the cluster changes is ready only once it knows the current configurations.

use std::time::Duration;

use crate::harness::grown::Grown;
use crate::harness::raw::{get, put, set_bucket};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The number of nodes that are restarted, one in each round.
const ROUNDS: usize = 3;
const KEYS: u32 = 60;

fn partitions_on_their_way(nodes: &Grown, through: &str) -> usize {
    nodes.moves(through)["transfers"].as_array().unwrap().len()
}

/// A strong write of a register goes to a single coordinator. A node that knows only outdated homes would choose one that is not a home any more.
#[test]
fn a_ready_node_refuses_no_strong_request_after_partitions_moved_during_its_restart() {
    let mut nodes = Grown::of(&NAMES);
    let settled = |nodes: &Grown| NAMES.iter().all(|name| partitions_on_their_way(nodes, name) == 0);
    nodes.eventually("every partition is on its target nodes", settled);
    let settings = set_bucket(&nodes.endpoint("a"), "registers", r#"{"conflict":"lww"}"#);
    assert_eq!(settings.status, 200, "{}", settings.text());

    let mut refused = Vec::new();
    for (round, name) in NAMES.into_iter().take(ROUNDS).enumerate() {
        let (through, other) = (NAMES[(round + 1) % 5], NAMES[(round + 2) % 5]);
        nodes.kill(name);
        nodes.done(through, &["weight", other, if round % 2 == 0 { "1000" } else { "100" }, "--yes"]);
        // The more partitions move while the node is down, the less it knows. Transfers that involve the node itself wait for it.
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
        nodes.eventually("every partition is on its target nodes", settled);
    }
    assert!(refused.is_empty(), "{} of {} strong requests: {refused:#?}", refused.len(), 2 * KEYS * ROUNDS as u32);
}
