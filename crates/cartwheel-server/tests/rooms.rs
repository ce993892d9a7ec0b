//! The rooms of the server stand above each other: no file imports from a room above its own.

use std::fs;
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
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for file in files_in(&src) {
        let place = file.strip_prefix(&src).expect("it is below").to_owned();
        let Some(own) = room_of(&place) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        for used in rooms_used(&text) {
            if floor(&used).unwrap_or_else(|| panic!("{}: `{used}` is no room", place.display())) > own {
                upward.push(format!("{} uses {used}", place.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn each_room_is_on_the_list_and_there() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names = fs::read_dir(&src).expect("the sources").map(|entry| entry.expect("an entry").path());
    let mut there: Vec<String> = names.map(|path| path.file_stem().expect("a name").to_string_lossy().into()).collect();
    there.retain(|name| name != "lib");
    there.sort_unstable();
    let mut listed = ROOMS.map(str::to_owned);
    listed.sort_unstable();
    assert_eq!(there, listed);
}

#[test]
fn what_a_text_uses_is_found() {
    let text = "use crate::shard::Shards;\n// crate::serve\nfn f() { crate::log::g() }\n#[cfg(test)]\nmod tests { use crate::http::Door; }";
    assert_eq!(rooms_used(text), ["shard", "log"]);
}

fn floor(room: &str) -> Option<usize> {
    ROOMS.iter().position(|known| *known == room)
}

/// The floor of a file, by its place below `src`; none of the list of rooms itself, and of files of tests.
fn room_of(place: &Path) -> Option<usize> {
    let name = place.file_stem()?.to_str()?;
    let first = Path::new(place.components().next()?.as_os_str()).file_stem()?.to_str()?;
    if first == "lib" || name.ends_with("tests") || name == "fuzz" { None } else { floor(first) }
}

/// The rooms that a text names in its code, but for its tests.
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
