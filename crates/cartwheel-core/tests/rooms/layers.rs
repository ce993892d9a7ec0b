//! The check of a crate's layers, shared by the crates whose rooms (the modules at the top of `src`) are on a list from the bottom up.

use std::fs;
use std::path::{Path, PathBuf};

/// Each use of a room above its own by a file of `src`; `is_test` names further files that are left out as tests.
pub fn upward(src: &Path, rooms: &[&str], is_test: impl Fn(&str) -> bool) -> Vec<String> {
    let layer = |room: &str| rooms.iter().position(|known| *known == room);
    let mut upward = Vec::new();
    for file in files_in(src) {
        let path = file.strip_prefix(src).expect("it is below").to_owned();
        let (name, first) = names(&path);
        if first == "lib" || name.ends_with("tests") || is_test(&name) {
            continue;
        }
        let Some(own) = layer(&first) else { continue };
        let text = fs::read_to_string(&file).expect("a source file");
        for used in rooms_used(&text) {
            if layer(&used).unwrap_or_else(|| panic!("{}: `{used}` is not a room", path.display())) > own {
                upward.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    upward
}

/// The rooms that exist in `src`, sorted.
pub fn existing(src: &Path) -> Vec<String> {
    let paths = fs::read_dir(src).expect("the sources").map(|entry| entry.expect("an entry").path());
    let mut existing: Vec<String> = paths.map(|path| stem(&path)).filter(|name| name != "lib").collect();
    existing.sort_unstable();
    existing
}

/// The rooms that a text names in its code, without its unit tests.
pub fn rooms_used(text: &str) -> Vec<String> {
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

/// The name of a file, and of its room, by its path below `src`.
fn names(path: &Path) -> (String, String) {
    let first = path.components().next().expect("a path has a first part");
    (stem(path), stem(Path::new(first.as_os_str())))
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into()
}
