//! What the packages contain agrees with the program: settings, flags, commands, ports, files, versions, manual pages and completions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{CARTWHEEL, Cluster, PATIENCE};

/// The default ports of HTTP, Redis clients and peers.
const PORTS: [&str; 3] = ["8080", "6380", "7400"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below `packaging` and the workflows.
fn files() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("packaging"), &mut found);
    walk(&root().join(".github"), &mut found);
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(named).collect()
}

fn output(args: &[&str]) -> String {
    let output = Command::new(CARTWHEEL).args(args).env_remove("CARTWHEEL_ENDPOINTS").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names of all settings of `cartwheel serve`.
fn settings() -> BTreeSet<String> {
    let listed: serde_json::Value = serde_json::from_str(&output(&["config", "show", "--json"])).unwrap();
    listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// The words of a text, where a word consists of the characters that `is_part` accepts.
fn words(text: &str, is_part: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !is_part(c)).filter(|word| !word.is_empty())
}

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = listed.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !matches!(*name, "" | "help")).map(str::to_owned).collect()
}

/// Every command and subcommand, each with its help text.
fn commands() -> Vec<(Vec<String>, String)> {
    let (mut found, mut open) = (Vec::new(), vec![Vec::<String>::new()]);
    while let Some(command) = open.pop() {
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = output(&args);
        open.extend(subcommands(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));
        found.push((command, help));
    }
    found
}

fn flags(text: &str) -> BTreeSet<&str> {
    words(text, |c| c == '-' || c.is_ascii_lowercase())
        .filter(|word| word.starts_with("--") && word.len() > 3)
        .collect()
}

#[test]
fn every_command_has_a_manual_page_with_all_its_flags_and_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    output(&["man", dir.path().to_str().unwrap()]);
    let completions = ["bash", "zsh", "fish"].map(|shell| output(&["completions", shell]));
    let commands = commands();
    assert!(commands.len() > 30, "the help texts are read");
    for (command, help) in &commands {
        let name = [&["cartwheel".to_owned()][..], command].concat().join("-");
        let page = fs::read_to_string(dir.path().join(format!("{name}.1"))).expect(&name).replace('\\', "");
        let options = help.split_once("Options:").map_or("", |(_, options)| options);
        let headed = options.lines().filter(|line| line.trim_start().starts_with('-')).collect::<Vec<_>>().join("\n");
        for flag in flags(&headed) {
            assert!(page.contains(flag), "{name}: {flag}");
        }
        for (shell, word) in completions.iter().flat_map(|shell| command.iter().map(move |word| (shell, word))) {
            assert!(shell.contains(word.as_str()), "{word}");
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), commands.len(), "no page without a command");
}

#[test]
fn environment_variables_in_packages_are_settings() {
    let settings = settings();
    let mut found = 0;
    for (file, text) in files() {
        for word in words(&text, |c| c == '_' || c.is_ascii_alphanumeric()) {
            let Some(name) = word.strip_prefix("CARTWHEEL_").filter(|name| !name.is_empty()) else { continue };
            let name = name.to_lowercase();
            let is_known = settings.contains(&name) || ["config", "endpoints"].contains(&name.as_str());
            assert!(is_known, "{file}: {word}");
            found += 1;
        }
    }
    assert!(found > 20, "the files are read");
}

#[test]
fn the_debian_settings_file_is_valid_and_so_are_its_examples() {
    let dir = tempfile::tempdir().unwrap();
    let shipped = text("packaging/deb/cartwheel.toml");
    // An example is a line that begins with `#` and no space.
    let is_example = |line: &&str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(char::is_alphabetic));
    let examples: Vec<&str> = shipped.lines().filter(is_example).map(|line| &line[1..]).collect();
    assert!(examples.len() > 8, "the examples are found");
    let live = shipped.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    for content in [live.clone(), format!("{live}\n{}", examples.join("\n"))] {
        let file = dir.path().join("cartwheel.toml");
        fs::write(&file, content).unwrap();
        let shown = output(&["config", "show", "--config", file.to_str().unwrap()]);
        assert!(shown.contains("/var/lib/cartwheel"), "{shown}");
    }
}

#[test]
fn the_unit_names_files_of_the_package_and_a_command_that_exists() {
    let (unit, manifest) = (text("packaging/deb/cartwheel.service"), text("crates/cartwheel/Cargo.toml"));
    let settings_file = text("packaging/deb/cartwheel.toml");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    let command: Vec<&str> = value("ExecStart").split(' ').collect();
    assert_eq!(command[0], "/usr/bin/cartwheel");
    output(&[&command[1..], &["--help"]].concat());
    let environment = value("Environment").strip_prefix("CARTWHEEL_CONFIG=").unwrap();
    for path in [environment, value("EnvironmentFile").trim_start_matches('-')] {
        let packed = path.trim_start_matches('/');
        assert!(manifest.contains(&format!("\"{packed}\", \"644\"")), "{path} is packed");
        assert!(
            manifest.lines().any(|line| line.starts_with("conf-files") && line.contains(path)),
            "{path} is a conffile"
        );
    }
    assert!(settings_file.contains(&format!("dir = \"/var/lib/{}\"", value("StateDirectory"))));
    assert!(text("packaging/deb/scripts/postinst").contains("--home /var/lib/cartwheel"));
}

#[test]
fn the_chart_starts_nodes_with_flags_that_exist() {
    let start = text("packaging/helm/cartwheel/files/start");
    let known = output(&["serve", "--help"]) + &output(&["ready", "--help"]);
    let (used, known) = (flags(&start), flags(&known));
    assert!(used.len() > 10, "the flags are found: {used:?}");
    assert!(used.is_subset(&known), "{:?}", used.difference(&known).collect::<Vec<_>>());
}

#[test]
fn values_of_the_chart_are_in_its_schema() {
    let schema: serde_json::Value = serde_json::from_str(&text("packaging/helm/cartwheel/values.schema.json")).unwrap();
    let top = schema["properties"].as_object().unwrap();
    let values = text("packaging/helm/cartwheel/values.yaml");
    let given: BTreeSet<&str> = values
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    // Helm itself adds `global`.
    let described: BTreeSet<&str> = top.keys().map(String::as_str).filter(|name| *name != "global").collect();
    assert_eq!(given, described);
    let mut found = 0;
    for (file, text) in files().into_iter().filter(|(file, _)| file.contains("/templates/")) {
        for used in
            words(&text, |c| c == '.' || c.is_ascii_alphanumeric()).filter_map(|word| word.strip_prefix(".Values."))
        {
            let mut at = &schema;
            for name in used.split('.') {
                at = &at["properties"][name];
            }
            assert!(!at.is_null(), "{file}: .Values.{used}");
            found += 1;
        }
    }
    assert!(found > 30, "the templates are read");
}

#[test]
fn packages_use_the_default_ports() {
    for path in [
        "packaging/docker/compose.yaml",
        "packaging/helm/cartwheel/files/start",
        "packaging/helm/cartwheel/templates/services.yaml",
    ] {
        let text = text(path);
        for port in PORTS {
            assert!(text.contains(port), "{path}: {port}");
        }
    }
    let expected = format!("EXPOSE {}", PORTS.join(" "));
    assert!(text("packaging/docker/Dockerfile").lines().any(|line| line == expected));
    // The program's own defaults.
    let waits_at = text("crates/cartwheel-server/src/lifecycle/join.rs");
    for port in PORTS {
        assert!(waits_at.contains(&format!("\"127.0.0.1:{port}\"")), "{port}");
    }
}

#[test]
fn versions_agree() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = text("packaging/helm/cartwheel/Chart.yaml");
    for field in ["version", "appVersion"] {
        assert!(
            chart.lines().any(|line| line == format!("{field}: {version}")),
            "{field} of the chart is not {version}"
        );
    }
    let toolchain = text("rust-toolchain.toml");
    let rust = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    let mut found = 0;
    for (file, text) in files() {
        for pinned in text.split("rust:").skip(1).chain(text.split("RUSTUP_TOOLCHAIN").skip(1)) {
            let pinned = pinned.trim_start_matches(['=', ':', ' ']);
            assert!(pinned.starts_with(rust), "{file} names another toolchain than {rust}: {}", &pinned[..10]);
            found += 1;
        }
    }
    assert!(found >= 6, "the toolchains are found");
}

#[test]
fn files_that_workflows_and_scripts_name_exist() {
    let mut found = 0;
    for (file, text) in files() {
        let is_part = |c: char| matches!(c, '/' | '.' | '-' | '_') || c.is_ascii_alphanumeric();
        for word in words(&text, is_part) {
            if ["packaging/", ".ci/", "crates/"].iter().any(|place| word.starts_with(place)) {
                let is_made = word.ends_with("sbom.json");
                assert!(is_made || root().join(word.trim_end_matches('.')).exists(), "{file}: {word}");
                found += 1;
            }
        }
    }
    assert!(found > 8, "the names are found");
}

/// As health checks and start scripts use it: 0 if a node is ready, 3 if none answers, 4 if those that answer are not ready.
#[test]
fn ready_tells_nodes_that_are_ready_from_those_that_are_not_and_those_that_are_silent() {
    let cluster = Cluster::start();
    let ready = |nodes: &str, wait: Option<&str>| {
        let wait = wait.map(|time| ["--wait", time]);
        let command = ["ready", "--node", nodes].into_iter().chain(wait.into_iter().flatten());
        Command::new(CARTWHEEL).args(command).output().unwrap().status.code()
    };
    let (first, second) = (cluster.endpoint(1), cluster.endpoint(2));
    assert_eq!(ready(&first, Some("30s")), Some(0));
    cluster.kill(2);
    cluster.kill(3);
    assert_eq!(ready(&second, None), Some(3));
    let deadline = Instant::now() + PATIENCE;
    while ready(&first, None) != Some(4) {
        assert!(Instant::now() < deadline, "a node alone is not ready, and says so");
        thread::sleep(Duration::from_millis(100));
    }
}
