//! The structure of the crates: layers, names of types, and what the command-line tools may use.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the core (modules at the top of `src`), from the lowest up.
const CORE: [&str; 18] = [
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
    "listing",
    "reconfiguration",
    "control",
    "node",
];

/// The rooms of the server, from the lowest up.
const SERVER: [&str; 20] = [
    "os",
    "percent",
    "tls",
    "config",
    "log",
    "trace",
    "tcp",
    "memory",
    "data_dir",
    "access",
    "shard",
    "control_queue",
    "peers",
    "control",
    "lifecycle",
    "metrics",
    "backend",
    "http",
    "resp",
    "serve",
];

/// The files and folders of the command line that may use the server's crates.
const RUN_A_NODE: [&str; 8] = [
    "main.rs",
    "cli/config.rs",
    "cli/dev.rs",
    "commands/config.rs",
    "commands/dev",
    "commands/mod.rs",
    "commands/renew.rs",
    "commands/serve.rs",
];

#[test]
fn no_file_of_the_core_uses_a_room_above_its_own() {
    assert_layers("cartwheel-core", &CORE);
}

#[test]
fn no_file_of_the_server_uses_a_room_above_its_own() {
    assert_layers("cartwheel-server", &SERVER);
}

#[test]
fn no_two_types_of_a_crate_share_a_name() {
    let mut shared = Vec::new();
    for (name, src) in crates() {
        let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for file in files_in(&src).into_iter().filter(|file| !is_test(file)) {
            for declared in types_declared(&text(&file)) {
                places.entry(declared).or_default().push(file.clone());
            }
        }
        shared.extend(places.into_iter().filter(|(_, files)| files.len() > 1).map(|place| (name.clone(), place)));
    }
    assert!(shared.is_empty(), "{shared:#?}");
}

#[test]
fn the_tools_do_not_use_the_crates_of_the_server() {
    let src = src_of("cartwheel");
    let users = files_in(&src).into_iter().filter(|file| {
        let text = text(file);
        text.contains("cartwheel_server") || text.contains("cartwheel_storage")
    });
    let tools: Vec<_> =
        users.filter(|file| !RUN_A_NODE.iter().any(|allowed| file.starts_with(src.join(allowed)))).collect();
    assert!(tools.is_empty(), "{tools:?}");
}

#[test]
fn uses_and_declarations_are_found_in_code_only() {
    let text = "use crate::ring::Ring;\n// crate::node\npub struct Lot;\n/// pub enum Not;\nfn f() { crate::wire::g() }\n\
                pub(super) enum Little<T> {}\n#[cfg(test)]\nmod tests { use crate::node::Node; pub struct Tested; }";
    assert_eq!(rooms_used(text), ["ring", "wire"]);
    assert_eq!(types_declared(text), ["Lot", "Little"]);
}

/// Fails where a file uses a room above its own, and where `rooms` are not exactly the rooms that exist.
fn assert_layers(name: &str, rooms: &[&str]) {
    let src = src_of(name);
    let entries = fs::read_dir(&src).unwrap().map(|entry| stem(&entry.unwrap().path()));
    let mut existing: Vec<String> = entries.filter(|name| name != "lib").collect();
    let mut listed: Vec<String> = rooms.iter().map(|&room| room.to_owned()).collect();
    existing.sort_unstable();
    listed.sort_unstable();
    assert_eq!(existing, listed, "the list of rooms");

    let layer = |room: &str| rooms.iter().position(|known| *known == room);
    let mut upward = Vec::new();
    for file in files_in(&src).into_iter().filter(|file| !is_test(file)) {
        let path = file.strip_prefix(&src).unwrap();
        let Some(own) = layer(&stem(Path::new(path.iter().next().unwrap()))) else { continue };
        for used in rooms_used(&text(&file)) {
            if layer(&used).unwrap_or_else(|| panic!("{}: `{used}` is not a room", path.display())) > own {
                upward.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

/// The rooms that a text names.
fn rooms_used(text: &str) -> Vec<String> {
    let names = |line: &str| -> Vec<String> {
        let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        line.split("crate::").skip(1).map(name).filter(|name: &String| !name.is_empty()).collect()
    };
    code(text).flat_map(names).collect()
}

/// The names of the types that a text declares for others to use.
fn types_declared(text: &str) -> Vec<String> {
    let declared = |line: &str| -> Option<String> {
        let rest = line.trim_start().strip_prefix("pub")?;
        let rest = rest.strip_prefix('(').map_or(Some(rest), |rest| rest.split_once(')').map(|(_, rest)| rest))?;
        let (kind, rest) = rest.trim_start().split_once(' ')?;
        let name = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        ["struct", "enum", "trait", "type", "union"].contains(&kind).then_some(name)
    };
    code(text).filter_map(declared).collect()
}

/// The lines of a text without comments and unit tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Whether a file holds unit tests only.
fn is_test(file: &Path) -> bool {
    let name = stem(file);
    name.ends_with("tests") || name == "fuzz"
}

/// Each crate's name and sources.
fn crates() -> Vec<(String, PathBuf)> {
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
    let crates: Vec<_> =
        folders.map(|entry| entry.unwrap().path()).map(|path| (stem(&path), path.join("src"))).collect();
    assert!(crates.len() > 5, "{crates:?}");
    crates
}

fn src_of(name: &str) -> PathBuf {
    crates().into_iter().find(|(found, _)| found == name).unwrap().1
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into()
}
