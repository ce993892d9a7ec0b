//! The layers of the core: no file uses a room (a module at the top of `src`) above its own.

#[path = "rooms/layers.rs"]
mod layers;

use std::path::{Path, PathBuf};

/// The rooms, from the bottom up.
const ROOMS: [&str; 17] = [
    "mutation",
    "value",
    "ring",
    "cluster",
    "admission",
    "message",
    "store",
    "wire",
    "event",
    "outbox",
    "config",
    "replica",
    "anti_entropy",
    "coordinator",
    "reconfiguration",
    "control",
    "node",
];

#[test]
fn no_file_uses_a_room_above_its_own() {
    let upward = layers::upward(&src(), &ROOMS, |_| false);
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn the_list_has_exactly_the_rooms_that_exist() {
    let mut listed = ROOMS.map(str::to_owned);
    listed.sort_unstable();
    assert_eq!(layers::existing(&src()), listed);
}

#[test]
fn rooms_used_in_code_are_found_and_comments_and_tests_are_ignored() {
    let text = "use crate::ring::Ring;\n// crate::node\nfn f() { crate::wire::g() }\n#[cfg(test)]\nmod tests { use crate::node::Node; }";
    assert_eq!(layers::rooms_used(text), ["ring", "wire"]);
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
