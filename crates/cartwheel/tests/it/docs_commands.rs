//! The commands in README.md and the quick start print the output that is shown there.
//!
//! The `sh` blocks of a page are one shell session in their order, against a cluster of the page's own on free ports. A `text` block shows
//! what the `sh` block before it prints: `...` stands for anything within a line, and for any number of lines where it is alone on one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{CARTWHEEL, Cluster, PATIENCE};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use rustix::process::{Pid, Signal, kill_process};

/// Commands of these pages that are not run here, with the reason.
const LEFT_OUT: [(&str, &str); 2] = [
    ("cargo run --release -- dev", "the cluster is started by the test itself, by the same `cartwheel dev`"),
    ("cargo test --profile checks --workspace --all-features", "it runs this test"),
];

/// A block of commands, and the output shown for it, if any.
struct Block {
    commands: String,
    shown: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = fs::read_to_string(path).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(String, String)> = None;
    for event in Parser::new(&text) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(name))) => {
                open = Some((name.into_string(), String::new()))
            }
            Event::Text(text) => {
                if let Some((_, block)) = &mut open {
                    block.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => match open.take() {
                Some((name, commands)) if name == "sh" => blocks.push(Block { commands, shown: None }),
                Some((name, shown)) if name == "text" => {
                    let block = blocks.last_mut().filter(|block| block.shown.is_none());
                    block.expect("output is shown after the commands that print it").shown = Some(shown);
                }
                _ => {}
            },
            _ => {}
        }
    }
    assert!(!blocks.is_empty(), "{page} shows no commands");
    blocks
}

/// Whether the line `said` matches the line `shown`, in which `...` stands for anything.
fn is_like(said: &str, shown: &str) -> bool {
    let Some((before, after)) = shown.split_once("...") else { return said == shown };
    let Some(rest) = said.strip_prefix(before) else { return false };
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| is_like(&rest[at..], after))
}

fn are_like(said: &[&str], shown: &[&str]) -> bool {
    match shown {
        [] => said.is_empty(),
        ["...", shown @ ..] => (0..=said.len()).any(|at| are_like(&said[at..], shown)),
        [first, shown @ ..] => said.first().is_some_and(|line| is_like(line, first)) && are_like(&said[1..], shown),
    }
}

#[test]
fn output_is_compared_except_where_it_is_elided() {
    assert!(is_like("stored on 2 nodes", "stored on ... nodes") && !is_like("stored on 2 nodes", "stored on"));
    assert!(are_like(&["a", "b", "c"], &["a", "...", "c"]) && are_like(&["a", "c"], &["a", "...", "c"]));
    assert!(!are_like(&["a", "b", "d"], &["a", "...", "c"]) && !are_like(&["a", "b"], &["a"]));
}

/// The lines of a text that are not blank.
fn lines_of(text: &str) -> Vec<&str> {
    text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}

/// Runs the commands of a page, which shows a cluster of three nodes under `cartwheel dev`.
fn run(page: &str) {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    let work = folder.path().join("work");
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&work).unwrap();
    symlink(CARTWHEEL, bin.join("cartwheel")).unwrap();
    symlink(cluster.node_dir(1).parent().unwrap(), work.join("cartwheel-data")).unwrap();
    let port = |node: u16| cluster.endpoint(node).rsplit(':').next().unwrap().to_owned();
    let redis_port = |node: u16| cluster.redis_addr(node).rsplit(':').next().unwrap().to_owned();
    let ports: Vec<(String, String)> = (1..=3)
        .flat_map(|node| {
            let http = (format!(":{}", 8080 + node), format!(":{}", port(node)));
            [http, (format!("-p {}", 6380 + node), format!("-p {}", redis_port(node)))]
        })
        .collect();
    let to_real = |text: &str| ports.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(shown, real));
    let to_shown = |text: &str| ports.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(real, shown));

    let has_redis_cli = Command::new("redis-cli").arg("--version").output().is_ok();
    if !has_redis_cli {
        println!("skipped: the commands of redis-cli, which is not installed");
    }
    // The whole page is one script, so that variables persist. Each block writes to its own files.
    let mut script = String::from("set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    let blocks = blocks(page);
    for (number, block) in blocks.iter().enumerate() {
        let is_left_out = |line: &str| {
            let is_missing = line.trim().starts_with("redis-cli") && !has_redis_cli;
            is_missing || LEFT_OUT.iter().any(|(command, _)| line.trim().starts_with(command))
        };
        let commands: Vec<&str> = block.commands.lines().filter(|line| !is_left_out(line)).collect();
        script += &to_real(&format!("{{ :\n{}\n}} > ../out-{number} 2> ../err-{number}\n", commands.join("\n")));
    }
    let path = folder.path().join("page.sh");
    fs::write(&path, script).unwrap();
    let mut shell = Command::new("bash");
    shell.arg(&path).current_dir(&work);
    shell.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    shell.env("CARTWHEEL_ENDPOINTS", cluster.endpoints().join(","));
    for node in 1..=3 {
        shell.env(format!("NODE_{node}"), cluster.pid(node).to_string());
    }
    let mut shell = shell.spawn().unwrap();
    let begun = Instant::now();
    let has_succeeded = loop {
        match shell.try_wait().unwrap() {
            Some(status) => break status.success(),
            // A command of the page does not end. The shell is asked to end, and ends the processes that it started.
            None if begun.elapsed() > PATIENCE => {
                kill_process(Pid::from_child(&shell), Signal::TERM).unwrap();
                shell.wait().unwrap();
                break false;
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };

    let read = |name: String| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let printed: Vec<String> = (0..blocks.len()).map(|number| to_shown(&read(format!("out-{number}")))).collect();
    let session = || {
        let block = |number: usize| {
            format!("{}=> {}{}", blocks[number].commands, printed[number], read(format!("err-{number}")))
        };
        (0..blocks.len()).map(block).collect::<Vec<_>>().join("\n")
    };
    assert!(has_succeeded, "a command of {page} failed:\n{}", session());
    for (block, printed) in blocks.iter().zip(&printed) {
        let Some(shown) = &block.shown else { continue };
        let is_shown = are_like(&lines_of(printed), &lines_of(shown));
        assert!(is_shown, "{page}: the commands\n{}print\n{printed}\nand not\n{shown}", block.commands);
    }
}

#[path = "../../../cartwheel-client/examples/merge.rs"]
#[allow(dead_code, unreachable_pub, reason = "its `main` is not called here")]
mod merge;

const MERGING: &str = "docs/src/using/merging.md";

#[tokio::test]
async fn the_books_merge_examples_merge_siblings() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(MERGING)).unwrap();
    let block = |language: &str| {
        page.split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap().to_owned()
    };
    let shown = block("rust");
    let example =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cartwheel-client/examples/merge.rs"))
            .unwrap();
    assert!(example.contains(&shown), "{MERGING} shows another function than the example has");

    let cluster = Cluster::start();
    let client = cluster.client_of_all();
    client.put("carts", "alice", "milk", None).await.unwrap();
    client.put("carts", "alice", "eggs", None).await.unwrap();
    merge::add(&client, "alice", "tea").await.unwrap();
    let merged = client.get("carts", "alice").await.unwrap();
    assert_eq!((merged.values.len(), &merged.values[0].bytes[..]), (1, &b"eggs\nmilk\ntea"[..]));

    client.put("carts", "alice", "jam", None).await.unwrap();
    let script = block("python").replace("http://127.0.0.1:8081", &cluster.endpoint(1));
    let python = Command::new("python3").arg("-c").arg(script).output();
    let Ok(python) = python else { return eprintln!("python3 is missing: its example is not run") };
    assert_eq!(String::from_utf8_lossy(&python.stdout), "bread\neggs\njam\nmilk\ntea\n", "{python:?}");

    let shell = block("sh").replace("http://127.0.0.1:8081", &cluster.endpoint(2));
    let folder = tempfile::tempdir().unwrap();
    let curl = Command::new("bash").args(["-ec", &shell]).current_dir(&folder).output().unwrap();
    assert!(curl.status.success(), "{curl:?}");
    assert_eq!(&client.get("carts", "alice").await.unwrap().values[0].bytes[..], b"bread\nmilk");
}

#[test]
fn the_bench_commands_of_the_readme_run() {
    let cluster = Cluster::start();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    // `bench compare` starts servers of its own: see `bench_compare.rs`.
    let is_run_here = |flags: &&str| !flags.starts_with(" compare");
    let commands = readme.split('`').filter_map(|code| code.strip_prefix("cartwheel bench"));
    let shown: BTreeSet<&str> = commands.filter(is_run_here).collect();
    assert!(!shown.is_empty());
    for flags in shown {
        let mut bench = Command::new(CARTWHEEL);
        bench.arg("bench").args(flags.split_whitespace()).args(["--keys", "50", "--warmup", "0", "--ops", "200"]);
        let bench = bench.env("CARTWHEEL_ENDPOINTS", cluster.endpoints().join(",")).output().unwrap();
        assert!(bench.status.success(), "cartwheel bench{flags}: {}", String::from_utf8_lossy(&bench.stderr));
    }
}

#[test]
fn named_metrics_exist() {
    let cluster = Cluster::start();
    // A metric family is shown only once it has counted something.
    assert_eq!(crate::harness::raw::put(&cluster.endpoint(1), "/v1/kv/b/k", "value").status, 204);
    assert_eq!(crate::harness::raw::get(&cluster.endpoint(1), "/v1/kv/b/k").status, 200);
    let metrics = crate::harness::raw::get(&cluster.endpoint(1), "/metrics").text();
    let known: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let pages = [
        "docs/src/operating/metrics.md",
        "docs/src/operating/traces.md",
        "docs/src/operating/upgrade.md",
        "docs/src/operating/settings.md",
        "docs/src/operating/lost-disk.md",
    ];
    let mut named = 0;
    for page in pages {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page)).unwrap();
        for name in
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("cartwheel_"))
        {
            // A counter's sample has a suffix that its description lacks.
            assert!(
                known.contains(name) || known.contains(name.trim_end_matches("_total")),
                "{page}: no metric {name}"
            );
            named += 1;
        }
    }
    assert!(named > 20, "only {named} metrics are named");
}

#[test]
fn the_readmes_commands_print_what_it_shows() {
    run("README.md");
}

#[test]
fn the_quick_starts_commands_print_what_it_shows() {
    run("docs/src/quick-start.md");
}
