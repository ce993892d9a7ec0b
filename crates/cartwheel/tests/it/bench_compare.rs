//! `cartwheel bench compare`: its tables and JSON are complete, and it leaves neither processes nor files behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{CARTWHEEL, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A comparison that is as short as possible. Its temporary data is in `dir`.
fn compare(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(CARTWHEEL);
    command.args(["bench", "compare", "--keys", "50", "--value-size", "100", "--connections", "4", "--warmup", "0"]);
    command.args(["--seconds", "1", "--rounds", "1", "--dir"]).arg(dir).args(args);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_success(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The processes that were started with `dir` or work in it; Redis replaces its command line.
fn processes_in(dir: &Path) -> Vec<String> {
    let is_in = |process: &Path| {
        let command = fs::read(process.join("cmdline")).map(|line| text(&line)).unwrap_or_default();
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let is_server = works_there || command.contains(dir.to_str()?) && !command.contains("\0compare\0");
        is_server.then_some(command)
    };
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| is_in(&entry.ok()?.path()));
    processes.filter(|command| !command.is_empty()).collect()
}

fn assert_nothing_left(dir: &Path) {
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.is_empty(), "{files:?}");
    let begun = Instant::now();
    while !processes_in(dir).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", processes_in(dir));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The values of a field in all cases.
fn of_cases(report: &Value, field: &str) -> Vec<Value> {
    report["cases"].as_array().unwrap().iter().map(|case| case[field].clone()).collect()
}

#[test]
fn one_store_is_measured_with_each_workload_and_r() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (json, svg) = (results.path().join("compare.json"), results.path().join("compare.svg"));
    let mut command = compare(dir.path(), &["--store", "cartwheel", "--workload", "A,w", "--durability", "os"]);
    let printed = assert_success(&command.arg("--json").arg(&json).arg("--svg").arg(&svg).output().unwrap());
    assert!(printed.starts_with("Cartwheel "), "{printed}");
    for part in ["CPU US/OP", "READ P50", "\nA Cartwheel os R=1 ", "\nA Cartwheel os R=2 ", "\nW Cartwheel os "] {
        assert!(printed.contains(part), "{part:?} is missing:\n{printed}");
    }
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(of_cases(&report, "workload"), ["A", "A", "W"]);
    assert_eq!(of_cases(&report, "r"), [1.into(), 2.into(), Value::Null]);
    assert_eq!(of_cases(&report, "cpu_ratio_to_redis"), [Value::Null, Value::Null, Value::Null]);
    for case in report["cases"].as_array().unwrap() {
        let run = &case["rounds"][0];
        let is_positive = |field: &str| run[field].as_f64().is_some_and(|number| number > 0.0);
        assert!(is_positive("ops") && is_positive("voluntary_switches_per_op"), "{case}");
        assert_eq!(run["failed"], 0.0, "{case}");
        assert_eq!(run["read_us"].is_object(), case["workload"] == "A", "{case}");
        assert!(run["write_us"]["p50"].as_f64() <= run["write_us"]["p999"].as_f64(), "{case}");
    }
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("\nW os\n"), "{svg}");
    assert_nothing_left(dir.path());
}

#[test]
fn both_stores_are_measured_if_redis_is_installed() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("compare.json");
    let mut command = compare(dir.path(), &["--workload", "a", "--durability", "fsync", "--r", "2"]);
    let printed = assert_success(&command.arg("--json").arg(&json).output().unwrap());
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    if is_installed("redis-server") {
        assert!(printed.contains("\nA Redis always "), "{printed}");
        assert_eq!(of_cases(&report, "store"), ["cartwheel", "redis"]);
        assert_eq!(report["stores"][1]["processes"], 9);
        assert_eq!(report["cases"][1]["rounds"][0]["failed"], 0.0, "{report}");
        assert!(report["cases"][1]["rounds"][0]["ops"].as_f64().is_some_and(|ops| ops > 0.0), "{report}");
    } else {
        assert_skipped(&printed, &report);
    }
    assert_nothing_left(dir.path());
}

#[test]
fn a_missing_redis_is_reported() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("compare.json");
    let mut command = compare(dir.path(), &["--workload", "w", "--durability", "os"]);
    let printed = assert_success(&command.env("PATH", results.path()).arg("--json").arg(&json).output().unwrap());
    assert_skipped(&printed, &serde_json::from_slice(&fs::read(json).unwrap()).unwrap());

    let refused = compare(dir.path(), &["--store", "redis"]).env("PATH", results.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("needs redis-server on the PATH"), "{}", text(&refused.stderr));
    assert_nothing_left(dir.path());
}

fn assert_skipped(printed: &str, report: &Value) {
    assert!(printed.contains("skipped: Redis Cluster: redis-server is not on the PATH"), "{printed}");
    assert!(of_cases(report, "store").iter().all(|store| store == "cartwheel"), "{report}");
    assert_eq!(report["skipped"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_interrupted_comparison_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let child = compare(dir.path(), &[]).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    // `cartwheel dev` and its three nodes, and with Redis nine more.
    let expected = if is_installed("redis-server") { 13 } else { 4 };
    while processes_in(dir.path()).len() < expected {
        assert!(begun.elapsed() < PATIENCE, "the servers do not start: {:?}", processes_in(dir.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert_nothing_left(dir.path());
}

#[test]
fn unusable_arguments_are_refused_with_the_reason() {
    let missing = tempfile::tempdir().unwrap().path().join("missing");
    let refused = compare(&missing, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("choose a writable directory with --dir"), "{}", text(&refused.stderr));
    for args in [["--r", "4"], ["--workload", "d"], ["--store", "etcd"], ["--rounds", "0"], ["--keys", "0"]] {
        let refused = Command::new(CARTWHEEL).args(["bench", "compare"]).args(args).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        assert!(text(&refused.stderr).contains(args[0]), "{}", text(&refused.stderr));
    }
}
