//! The command-line tools are clients of the HTTP API: only the commands that run or prepare a node use the server's crate.

use std::fs;
use std::path::{Path, PathBuf};

/// The files and folders below `src` that may use `cartwheel_server`.
const OF_NODES: [&str; 8] = [
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
fn tools_do_not_use_the_server_crate() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let users = files_in(&src).into_iter().filter(|file| {
        let text = fs::read_to_string(file).expect("a source file can be read");
        text.contains("cartwheel_server") || text.contains("cartwheel_storage")
    });
    let tools: Vec<_> =
        users.filter(|file| !OF_NODES.iter().any(|allowed| file.starts_with(src.join(allowed)))).collect();
    assert!(tools.is_empty(), "{tools:?}");
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("a source folder can be listed")
        .map(|entry| entry.expect("a folder's entry can be read").path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}
