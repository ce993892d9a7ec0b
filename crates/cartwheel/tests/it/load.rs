//! `cartwheel load` against a real cluster: it stores each record once, resumes after kills and outages, and reports bad records.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{CARTWHEEL, Cluster, PATIENCE};
use cartwheel_client::Client;
use serde_json::Value;

fn load(cluster: &Cluster, file: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(CARTWHEEL);
    command.arg("load").arg(file).args(["--bucket", "b"]).args(args);
    for endpoint in cluster.endpoints() {
        command.args(["--node", &endpoint]);
    }
    command
}

fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The standard error of a load that must fail.
fn refused(output: &Output) -> String {
    failed(output, 5)
}

/// The standard error of a load that must end with the exit code `code`.
fn failed(output: &Output, code: i32) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn state_path(file: &Path) -> PathBuf {
    format!("{}.cartwheel-load", file.display()).into()
}

fn write(dir: &tempfile::TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn json_lines(count: usize, mark: &str) -> String {
    (0..count).map(|number| format!("{{\"id\":{number},\"mark\":\"{mark}\"}}\n")).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn one_value(client: &Client, key: &str) -> (String, String) {
    let mut found = client.get("b", key).await.unwrap();
    assert_eq!((found.values.len(), found.deleted), (1, false), "{key}");
    let value = found.values.remove(0);
    (String::from_utf8(value.bytes.to_vec()).unwrap(), value.content_type)
}

/// Checks that each line of the file is stored as the only value of its key.
#[tokio::main(flavor = "current_thread")]
async fn all_there_once(client: &Client, text: &str) {
    for (number, line) in text.lines().enumerate() {
        let found = client.get("b", number.to_string()).await.unwrap();
        let values: Vec<_> = found.values.iter().map(|value| value.bytes.as_ref()).collect();
        assert_eq!(values, [line.as_bytes()], "line {}", number + 1);
    }
}

#[test]
fn files_of_all_formats_load_and_a_second_load_replaces_the_first() {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let client = cluster.client(2);
    let text = json_lines(500, "first");
    let file = write(&dir, "rows.jsonl", &text);
    let summary = done(&load(&cluster, &file, &["--key", "id", "--json"]).output().unwrap());
    assert_eq!((&summary["stored"], &summary["complete"]), (&500.into(), &true.into()));
    all_there_once(&client, &text);
    assert!(!state_path(&file).exists());

    let text = json_lines(500, "second");
    std::fs::write(&file, &text).unwrap();
    done(&load(&cluster, &file, &["--key", "id", "--json"]).output().unwrap());
    all_there_once(&client, &text);

    // Where many lines have the same key, the last one stays.
    let csv: String = (0..100).map(|number| format!("k{},{number}\r\n", number % 3)).collect();
    let file = write(&dir, "rows.csv", format!("name,count\r\n{csv}"));
    let summary = done(&load(&cluster, &file, &["--key", "name", "--value", "count", "--json"]).output().unwrap());
    assert_eq!(summary["stored"], 100);
    assert_eq!(one_value(&client, "k0"), ("99".to_owned(), "text/plain; charset=utf-8".to_owned()));
    assert_eq!(one_value(&client, "k1").0, "97");

    // Tab-separated lines from standard input, stored as JSON objects.
    let mut command = load(&cluster, Path::new("-"), &["--key", "name", "--format", "tsv", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"name\tcount\nk9\t\"a\tb\"\nk8\t1\n").unwrap();
    assert_eq!(done(&child.wait_with_output().unwrap())["stored"], 2);
    assert_eq!(
        one_value(&client, "k9"),
        ("{\"name\":\"k9\",\"count\":\"a\\tb\"}".to_owned(), "application/json".to_owned())
    );
}

fn killed_half_way_and_resumed(args: &[&str]) {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let text = json_lines(6_000, "x");
    let file = write(&dir, "rows.jsonl", &text);
    let args = [&["--key", "id", "--json"], args].concat();
    let mut child = load(&cluster, &file, &args).stdout(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let stored = || {
        let state: Value = serde_json::from_slice(&std::fs::read(state_path(&file)).ok()?).ok()?;
        state["place"]["stored"].as_u64().filter(|&stored| stored > 0)
    };
    let stored = loop {
        match stored() {
            Some(stored) => break stored,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
        assert!(begun.elapsed() < PATIENCE, "no record was stored");
        assert!(child.try_wait().unwrap().is_none(), "the load ended before it could be killed: give it more records");
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(stored < 6_000);

    let summary = done(&load(&cluster, &file, &args).output().unwrap());
    assert_eq!(summary["stored"], 6_000);
    assert!(summary["stored_before"].as_u64().unwrap() >= stored, "{summary}");
    all_there_once(&cluster.client(3), &text);
    assert!(!state_path(&file).exists());
}

#[test]
fn a_killed_load_resumes_and_stores_every_record_once() {
    killed_half_way_and_resumed(&[]);
}

#[test]
fn a_killed_blind_load_resumes_and_stores_every_record_once() {
    killed_half_way_and_resumed(&["--blind"]);
}

#[test]
fn a_load_continues_without_one_node_and_resumes_after_a_lost_quorum() {
    let mut cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let text = json_lines(300, "x");
    let file = write(&dir, "rows.jsonl", &text);
    cluster.kill(1);
    done(&load(&cluster, &file, &["--key", "id", "--json"]).output().unwrap());
    cluster.kill(2);
    let text = json_lines(20, "y");
    std::fs::write(&file, &text).unwrap();
    // The load fails without a quorum, reports the line, and resumes when there is a quorum again.
    let output = load(&cluster, &file, &["--key", "id", "--patience", "1"]).output().unwrap();
    let said = failed(&output, 4);
    assert!(said.contains("error: line ") && said.contains("run the same command to resume"), "{said}");
    assert!(state_path(&file).exists());
    let child = load(&cluster, &file, &["--key", "id", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    cluster.restart(2);
    done(&child.wait_with_output().unwrap());
    all_there_once(&cluster.client(3), &text);
}

#[test]
fn bad_records_stop_a_load_or_are_skipped() {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir, "rows.jsonl", b"{\"id\":1}\n{\"id\":2}\n{\"ID\":3}\n\xff\n{\"id\":5}\n");
    let said = refused(&load(&cluster, &file, &["--key", "id"]).output().unwrap());
    assert!(said.contains("line 3: no field \"id\"") && said.contains("All records before line 3 are done"), "{said}");
    assert_eq!(one_value(&cluster.client(1), "2").0, "{\"id\":2}");

    // The same load resumes and skips the bad records.
    let summary = skipped(&load(&cluster, &file, &["--key", "id", "--skip-bad", "--json"]).output().unwrap());
    assert_eq!((&summary["stored"], &summary["stored_before"], &summary["skipped"]), (&3.into(), &2.into(), &2.into()));
    assert_eq!(summary["bad"][1]["line"], 4);
    assert_eq!(one_value(&cluster.client(1), "5").0, "{\"id\":5}");

    // A record that the cluster refuses is reported with its line.
    let large = format!("{{\"id\":1}}\n{{\"id\":2,\"x\":\"{}\"}}\n", "x".repeat(1 << 20));
    let file = write(&dir, "large.jsonl", large);
    let said = refused(&load(&cluster, &file, &["--key", "id"]).output().unwrap());
    assert!(said.contains("line 2: ") && said.contains("too_large"), "{said}");

    // The state file of another load is not used.
    std::fs::write(&file, "{\"id\":7}\n").unwrap();
    let said = refused(&load(&cluster, &file, &["--key", "id"]).output().unwrap());
    assert!(said.contains("is the state of another load"), "{said}");
}

/// A load that skipped records exits with 5 and still prints its summary.
fn skipped(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_unclosed_quote_spoils_only_its_own_line() {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..3_000).map(|number| format!("k{number},{number}")).collect();
    let mut broken = rows.clone();
    broken[1] = "k1,\"one".to_owned();
    let file = write(&dir, "rows.csv", format!("k,v\r\n{}\r\n", broken.join("\r\n")));
    let args = ["--key", "k", "--value", "v", "--blind", "--json"];
    let said = refused(&load(&cluster, &file, &args).output().unwrap());
    assert!(said.contains("line 3: a quote is not closed"), "{said}");
    assert!(said.contains("All records before line 3 are done: 1 stored, 0 skipped"), "{said}");

    let summary = skipped(&load(&cluster, &file, &[&args[..], &["--skip-bad"]].concat()).output().unwrap());
    assert_eq!((&summary["stored"], &summary["skipped"]), (&2_999.into(), &1.into()));
    assert_eq!(summary["bad"][0]["line"], 3);
    assert_eq!(one_value(&cluster.client(1), "k2999").0, "2999");
}

#[test]
fn a_value_over_the_limit_is_skipped_with_skip_bad() {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir, "rows.csv", format!("k,v\na,1\nb,{}\nc,3\n", "x".repeat(2 << 20)));
    let args = ["--key", "k", "--value", "v", "--json"];
    let said = refused(&load(&cluster, &file, &args).output().unwrap());
    assert!(said.contains("line 3: ") && said.contains("too_large") && said.contains("--skip-bad"), "{said}");

    let summary = skipped(&load(&cluster, &file, &[&args[..], &["--skip-bad"]].concat()).output().unwrap());
    assert_eq!((&summary["stored"], &summary["skipped"]), (&2.into(), &1.into()));
    assert_eq!(summary["bad"][0]["line"], 3);
    assert_eq!(one_value(&cluster.client(1), "c").0, "3");
}

#[test]
fn a_second_load_of_the_same_file_is_refused_while_the_first_runs() {
    let cluster = Cluster::start();
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir, "rows.jsonl", json_lines(20, "x"));
    // The first load has no quorum and waits for one.
    cluster.kill(2);
    cluster.kill(3);
    let mut first =
        load(&cluster, &file, &["--key", "id"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !state_path(&file).exists() {
        assert!(begun.elapsed() < PATIENCE, "the first load has written no state");
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = refused(&load(&cluster, &file, &["--key", "id"]).output().unwrap());
    assert!(said.contains("another load is using the state file"), "{said}");
    first.kill().unwrap();
    first.wait().unwrap();
    // A killed load does not keep the lock.
    let said = failed(&load(&cluster, &file, &["--key", "id", "--patience", "1"]).output().unwrap(), 4);
    assert!(said.contains("run the same command to resume"), "{said}");
}

#[test]
fn files_that_cannot_be_loaded_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(&dir, "empty.csv", "");
    write(&dir, "other.csv", "a,b\n1,2\n");
    write(&dir, "rows.txt", "{}\n");
    for (file, why) in [
        (path("nowhere.csv"), "cannot read"),
        (dir.path().to_path_buf(), "does not show its format"),
        (path("rows.txt"), "pass --format"),
        (path("empty.csv"), "no header: "),
        (path("other.csv"), "no column \"k\": the header has a, b"),
    ] {
        let output = Command::new(CARTWHEEL).arg("load").arg(&file).args(["--bucket", "b", "--key", "k"]).output();
        let said = failed(&output.unwrap(), 2);
        assert!(said.starts_with("error: ") && said.contains(why), "{said}");
    }
    let mut command = Command::new(CARTWHEEL);
    command.arg("load").arg(dir.path()).args(["--bucket", "b", "--key", "k", "--format", "csv"]);
    assert!(failed(&command.output().unwrap(), 2).contains("is a directory: pass a file"));
}
