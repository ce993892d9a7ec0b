//! `cartwheel backup` on real nodes: what is restored is what was backed up, though nodes die meanwhile; only changes are copied again; damage and
//! wrong keys are refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cartwheel_core::ring::{PartitionId, Partitions};
use cartwheel_core::value::key::Key;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::raw::{call, get, put, put_seen, set_bucket};
use crate::harness::{CARTWHEEL, PATIENCE, free_bases};

/// Nodes under `cartwheel dev`.
struct Nodes {
    dev: Child,
    pids: Vec<Pid>,
    http_base: u16,
    _dir: tempfile::TempDir,
}

impl Nodes {
    fn start(count: u16) -> Self {
        let ((http_base, _), (peer_base, _)) = (free_bases(), free_bases());
        let dir = tempfile::tempdir().unwrap();
        let mut dev = Command::new(CARTWHEEL)
            .args(["dev", "--shards", "2", "--nodes", &count.to_string(), "--dir"])
            .arg(dir.path().join("data"))
            .args(["--http-base", &http_base.to_string(), "--resp-base", &(http_base + 5).to_string()])
            .args(["--peer-base", &peer_base.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut pids = Vec::new();
        for line in lines.by_ref() {
            if line.starts_with("node-") {
                let pid = line.split_whitespace().nth(3).unwrap().parse().unwrap();
                pids.push(Pid::from_raw(pid).unwrap());
            }
            if line.contains("nodes are ready") {
                break;
            }
        }
        // The rest of its output is read, so that it never blocks on a full pipe.
        std::thread::spawn(move || lines.count());
        assert_eq!(pids.len(), usize::from(count));
        Self { dev, pids, http_base, _dir: dir }
    }

    /// The address of a node, counted from 1.
    fn endpoint(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.http_base + number)
    }

    fn kill(&self, number: u16) {
        kill_process(self.pids[usize::from(number) - 1], Signal::KILL).unwrap();
    }

    /// `cartwheel backup ARGS` through the first node.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(CARTWHEEL);
        command.arg("backup").args(args).args(["--json", "--node", &self.endpoint(1)]).stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed, and returns what it says.
    fn done(&self, args: &[&str]) -> Value {
        said(&self.command(args).output().unwrap())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for &pid in &self.pids {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.dev.kill();
        let _ = self.dev.wait();
    }
}

fn said(output: &Output) -> Value {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The exit status and standard error of a command on a place alone.
fn tried(args: &[&str]) -> (i32, String) {
    let output = Command::new(CARTWHEEL).arg("backup").args(args).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What a get of a key shows, without what differs from cluster to cluster: the context, and the seconds that are left.
fn shown(endpoint: &str, path: &str) -> (Vec<Value>, Vec<bool>) {
    let found = call(endpoint, "GET", path, &[("accept", "application/json")], b"");
    assert!([200, 300, 404].contains(&found.status), "{path}: {}", found.text());
    let mut siblings = found.json()["siblings"].as_array().cloned().unwrap_or_default();
    let left: Vec<Option<u64>> =
        siblings.iter_mut().map(|held| held.as_object_mut()?.remove("ttl")?.as_u64()).collect();
    siblings.sort_by_key(ToString::to_string);
    (siblings, left.into_iter().map(|left| left.is_some_and(|left| left > 3_000)).collect())
}

/// Writes keys of all kinds, and returns the paths of all.
fn write_all_kinds(endpoint: &str) -> Vec<String> {
    assert_eq!(set_bucket(endpoint, "last", r#"{"conflict": "lww", "r": 1, "max_value_bytes": 77777}"#).status, 200);
    assert_eq!(set_bucket(endpoint, "slots", r#"{"placement": "slot"}"#).status, 200);
    let mut paths = Vec::new();
    for number in 0..240 {
        let bucket = ["carts", "last", "slots"][number % 3];
        let path = format!("/v1/kv/{bucket}/k{number}%FF");
        let json = [("content-type", "application/json"), ("cartwheel-ttl", "3600"), ("content-encoding", "gzip")];
        let headers = if number % 5 == 0 { &json[..] } else { &[] };
        let written = call(endpoint, "PUT", &path, headers, format!("value {number}").as_bytes());
        assert_eq!(written.status, 204);
        match number % 7 {
            1 => assert_eq!(put(endpoint, &path, "a sibling").status, 204),
            2 => assert_eq!(put_seen(endpoint, &path, written.context(), "replaced").status, 204),
            3 => assert_eq!(call(endpoint, "DELETE", &path, &[], b"").status, 204),
            _ => {}
        }
        paths.push(path);
    }
    paths
}

#[test]
fn three_nodes_restored_into_five_hold_every_key_as_it_was_though_a_node_dies_in_each() {
    let (three, place, states) = (Nodes::start(3), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = place.path().to_str().unwrap();
    let paths = write_all_kinds(&three.endpoint(1));

    let create = three.command(&["create", at, "--concurrency", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    eventually("some partitions are copied", || files(&place.path().join("unfinished")).len() > 20);
    three.kill(2);
    let created = said(&create.wait_with_output().unwrap());
    assert_eq!((&created["partitions"], &created["resumed"]), (&256.into(), &false.into()));
    assert_eq!(tried(&["verify", at]).0, 0);
    assert!(files(&place.path().join("unfinished")).is_empty());
    let before: BTreeMap<&String, _> = paths.iter().map(|path| (path, shown(&three.endpoint(1), path))).collect();
    assert!(before.values().any(|(held, _)| held.len() == 2) && before.values().any(|(_, left)| *left == [true]));

    let (five, state) = (Nodes::start(5), states.path().join("state"));
    let restore = ["restore", at, "--concurrency", "1", "--state", state.to_str().unwrap()];
    let restoring = five.command(&restore).stdout(Stdio::piped()).spawn().unwrap();
    eventually("some objects are restored", || fs::read_to_string(&state).is_ok_and(|text| text.lines().count() > 20));
    five.kill(4);
    let restored = said(&restoring.wait_with_output().unwrap());
    assert_ne!(restored["from_cluster"], restored["into_cluster"]);
    assert_eq!(restored["settings_restored"], serde_json::json!(["last", "slots"]));
    for bucket in ["last", "slots", "carts"] {
        let of = |endpoint: String| get(&endpoint, &format!("/v1/buckets/{bucket}")).json();
        assert_eq!(of(five.endpoint(3)), of(three.endpoint(3)), "{bucket}");
    }
    for through in [1, 5] {
        for (path, held) in &before {
            let (mut now, left) = shown(&five.endpoint(through), path);
            // A delete of the other cluster is collected in the first epochs of this one; what it replaced stays replaced.
            let mut held = held.clone();
            now.retain(|sibling| sibling["deleted"] == false);
            held.0.retain(|sibling| sibling["deleted"] == false);
            assert_eq!(now, held.0, "{path} through node {through}");
            assert_eq!(left.iter().filter(|&&left| left).count(), held.1.iter().filter(|&&left| left).count());
        }
    }
    // Once more is harmless, and what is written replaces what was restored.
    let again = five.done(&["restore", at]);
    assert_eq!(again["settings_kept"], serde_json::json!([]));
    let siblings = before.iter().find(|(_, (held, _))| held.len() == 2).unwrap().0;
    let read = get(&five.endpoint(1), siblings);
    assert_eq!((read.status, read.siblings().len()), (300, 2));
    assert_eq!(put_seen(&five.endpoint(2), siblings, read.context(), "merged").status, 204);
    assert_eq!(get(&five.endpoint(3), siblings).text(), "merged");
}

/// Names of keys in one partition.
fn names_in(partition: u32, count: usize) -> Vec<String> {
    let partitions = Partitions::new(256).unwrap();
    let is_in = |name: &String| {
        let key = Key::new("many".into(), name.clone().into()).unwrap();
        partitions.of(key.token()) == PartitionId(partition)
    };
    (0..).map(|number: u32| format!("n{number}")).filter(is_in).take(count).collect()
}

#[test]
fn only_changed_ranges_are_copied_again_and_damage_or_another_key_is_refused() {
    let (nodes, dir) = (Nodes::start(3), tempfile::tempdir().unwrap());
    let node = nodes.endpoint(1);
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (at, key, other) = (file("place"), file("key"), file("other"));
    fs::write(&key, "0f".repeat(32)).unwrap();
    fs::write(&other, "1f".repeat(32)).unwrap();
    let many = names_in(7, 200);
    for name in &many {
        assert_eq!(put(&node, &format!("/v1/kv/many/{name}"), &"x".repeat(200)).status, 204);
    }
    for number in 0..100 {
        assert_eq!(put(&node, &format!("/v1/kv/few/k{number}"), "before").status, 204);
    }
    let deepens = |number| get(&nodes.endpoint(number), "/v1/backup/partitions/7?level=3").json()["level"] == 1;
    eventually("the trees grow and the replicas are equal", || (1..=3).all(deepens));

    // A backup that is killed goes on where it was.
    let flags = ["--key-file", &key, "--object-size", "1KiB"];
    let create = [&["create", &at][..], &flags].concat();
    let mut killed =
        nodes.command(&[&create[..], &["--concurrency", "1"]].concat()).stdout(Stdio::null()).spawn().unwrap();
    eventually("some partitions are copied", || files(&dir.path().join("place/unfinished")).len() > 20);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(tried(&["prune", &at, "--keep", "1", "--yes", "--key-file", &key]).0, 5, "one is unfinished");
    let first = nodes.done(&create);
    assert_eq!(first["resumed"], true);
    assert!(first["partitions_before"].as_u64().unwrap() >= 19 && first["copied_records"].as_u64().unwrap() <= 300);

    // Of one changed key, only the range is copied.
    let path = format!("/v1/kv/many/{}", many[0]);
    let written =
        call(&node, "PUT", &format!("{path}?w=3"), &[("cartwheel-context", get(&node, &path).context())], b"y");
    assert_eq!(written.status, 204);
    let second = nodes.done(&create);
    let copied = second["copied_records"].as_u64().unwrap();
    assert!((1..100).contains(&copied), "{second}");
    assert!(second["unchanged_objects"].as_u64().unwrap() > 50);
    assert_eq!(nodes.done(&create)["copied_records"], 0);
    let listed = tried(&["list", &at, "--key-file", &key, "--json"]).1;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let sizes: Vec<(u64, u64)> = listed["backups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backup| (backup["records"].as_u64().unwrap(), backup["new_bytes"].as_u64().unwrap()))
        .collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|(records, _)| *records == 300) && sizes[2].1 == 0, "{sizes:?}");
    let pruned = tried(&["prune", &at, "--keep", "1", "--yes", "--key-file", &key, "--json"]);
    assert_eq!(pruned.0, 0, "{}", pruned.1);
    assert_eq!(tried(&["verify", &at, "--key-file", &key]).0, 0, "what the last one needs is kept");

    // Nothing is readable without its key.
    assert!(
        !files(dir.path()).iter().any(|file| fs::read(file).unwrap().windows(9).any(|bytes| bytes == b"xxxxxxxxx"))
    );
    for wrong in [&["--key-file", &other][..], &[]] {
        for command in ["verify", "list"] {
            assert_eq!(tried(&[&[command, &at][..], wrong].concat()).0, 2, "{command} {wrong:?}");
        }
        assert_eq!(nodes.command(&[&["restore", &at][..], wrong].concat()).output().unwrap().status.code(), Some(2));
    }

    // What was written since survives a restore; an emptied bucket is restored; a delete stays, unless missing keys are wanted.
    let restore = ["restore", &at, "--key-file", &key];
    assert_eq!(put_seen(&node, &path, written.context(), "z").status, 204);
    assert_eq!(call(&node, "DELETE", "/v1/kv/many/gone", &[], b"").status, 204);
    let deleted = format!("/v1/kv/many/{}", many[1]);
    assert_eq!(call(&node, "DELETE", &deleted, &[], b"").status, 204);
    assert_eq!(call(&node, "DELETE", "/v1/buckets/few", &[("content-type", "application/json")], b"").status, 204);
    assert_eq!(get(&node, "/v1/kv/few/k1").status, 404);
    assert_eq!(nodes.done(&restore)["restored"], 300);
    assert_eq!(get(&node, &path).text(), "z");
    assert_eq!(get(&node, &deleted).status, 404);
    for number in 0..100 {
        assert_eq!(get(&node, &format!("/v1/kv/few/k{number}")).text(), "before");
    }
    let missing = nodes.done(&[&restore[..], &["--only-missing", "--bucket", "many"]].concat());
    assert_eq!((&missing["restored"], &missing["kept"]), (&1.into(), &199.into()));
    assert_eq!(get(&node, &deleted).text(), "x".repeat(200));
    assert_eq!(get(&node, &path).text(), "z");

    // A damaged object is found, and not restored.
    let object = files(&dir.path().join("place/objects")).pop().unwrap();
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, &bytes).unwrap();
    let name = object.file_name().unwrap().to_str().unwrap();
    let (status, text) = tried(&["verify", &at, "--key-file", &key]);
    assert!(status == 1 && text.contains(name), "{text}");
    let refused = nodes.command(&restore).output().unwrap();
    assert!(refused.status.code() == Some(1) && String::from_utf8_lossy(&refused.stderr).contains(name));
    fs::remove_file(&object).unwrap();
    let refused = nodes.command(&restore).output().unwrap();
    assert!(refused.status.code() == Some(1) && String::from_utf8_lossy(&refused.stderr).contains("missing"));
}
