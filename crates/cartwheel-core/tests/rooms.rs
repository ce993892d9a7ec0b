//! The layers of the core: no file uses a room (a module at the top of `src`) above its own.

use std::fs;
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
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for file in files_in(&src) {
        let path = file.strip_prefix(&src).expect("it is below").to_owned();
        let Some(own) = room_of(&path) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        for used in rooms_used(&text) {
            if layer(&used).unwrap_or_else(|| panic!("{}: `{used}` is not a room", path.display())) > own {
                upward.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn the_list_has_exactly_the_rooms_that_exist() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names = fs::read_dir(&src).expect("the sources").map(|entry| entry.expect("an entry").path());
    let mut existing: Vec<String> =
        names.map(|path| path.file_stem().expect("a name").to_string_lossy().into()).collect();
    existing.retain(|name| name != "lib");
    existing.sort_unstable();
    let mut listed = ROOMS.map(str::to_owned);
    listed.sort_unstable();
    assert_eq!(existing, listed);
}

#[test]
fn rooms_used_in_code_are_found_and_comments_and_tests_are_ignored() {
    let text = "use crate::ring::Ring;\n// crate::node\nfn f() { crate::wire::g() }\n#[cfg(test)]\nmod tests { use crate::node::Node; }";
    assert_eq!(rooms_used(text), ["ring", "wire"]);
}

fn layer(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

/// The layer of a file, by its path below `src`; none for `lib.rs` and for files of tests.
fn room_of(path: &Path) -> Option<usize> {
    let name = path.file_stem()?.to_str()?;
    let first = Path::new(path.components().next()?.as_os_str()).file_stem()?.to_str()?;
    if first == "lib" || name.ends_with("tests") { None } else { layer(first) }
}

/// The rooms that a text names in its code, without its unit tests.
fn rooms_used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let named = |line: &str| -> Vec<String> {
        let after = line.split("crate::").skip(1);
        let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        after.map(name).filter(|name: &String| !name.is_empty()).collect()
    };
    lines.flat_map(named).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}
