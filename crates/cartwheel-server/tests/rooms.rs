//! The rooms of the server stand above each other: no file imports from a room above its own.

#[path = "../../cartwheel-core/tests/rooms/layers.rs"]
mod layers;

use std::path::{Path, PathBuf};

/// The rooms, from the ground up.
const ROOMS: [&str; 13] = [
    "os",
    "config",
    "log",
    "tcp",
    "data_dir",
    "shard",
    "control_queue",
    "peers",
    "control",
    "lifecycle",
    "metrics",
    "http",
    "serve",
];

#[test]
fn no_file_uses_a_room_above_its_own() {
    let upward = layers::upward(&src(), &ROOMS, |name| name == "fuzz");
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn the_list_has_exactly_the_rooms_that_exist() {
    let mut listed = ROOMS.map(str::to_owned);
    listed.sort_unstable();
    assert_eq!(layers::existing(&src()), listed);
}

#[test]
fn what_a_text_uses_is_found() {
    let text = "use crate::shard::Shards;\n// crate::serve\nfn f() { crate::log::g() }\n#[cfg(test)]\nmod tests { use crate::http::Door; }";
    assert_eq!(layers::rooms_used(text), ["shard", "log"]);
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
