//! A node stays up when its log's reader is gone or stops reading, and when clients do not read answers, do not send requests or are too many.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::raw::{self, Unfinished, get, put, set_bucket};
use crate::harness::{CARTWHEEL, PATIENCE, free_bases, status};
use rustix::process::{Pid, Signal, kill_process};

const MIB: usize = 1 << 20;

/// A cluster of one node.
struct Lone {
    child: Child,
    port: u16,
    _root: tempfile::TempDir,
}

impl Lone {
    /// Starts the node with these flags and shell limits, with its log written to `log`, and waits until it is ready.
    fn start(limits: &str, args: &[&str], log: impl Into<Stdio>) -> Self {
        let (root, (http, peers)) = (tempfile::tempdir().unwrap(), free_bases());
        let serve = format!("{limits} exec \"$@\"");
        let child = Command::new("sh")
            .args([
                "-c",
                &serve,
                "sh",
                CARTWHEEL,
                "serve",
                "--name",
                "a",
                "--bootstrap",
                "--cluster-name",
                "c",
                "--shards",
                "1",
                "--dir",
            ])
            .arg(root.path().join("data"))
            .args(["--http-listen", &format!("127.0.0.1:{}", http + 1)])
            .args(["--peer-listen", &format!("127.0.0.1:{}", peers + 1)])
            .args(args)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let node = Self { child, port: http + 1, _root: root };
        node.eventually("the node is ready", || status(&node.endpoint("/readyz")) == Some(200));
        // A single node can hold only one replica.
        node.set("b", r#"{"n": 1, "r": 1, "w": 1}"#);
        node
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn endpoint(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn eventually(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn metric(&self, name: &str) -> f64 {
        let text = get(&self.endpoint(""), "/metrics").text();
        let sample = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        sample.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// The process's peak memory, in MiB.
    fn peak_mib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak.map(|kib: usize| kib >> 10).unwrap()
    }

    fn set(&self, bucket: &str, settings: &str) {
        assert_eq!(set_bucket(&self.endpoint(""), bucket, settings).status, 200);
    }

    /// Stops the node and checks that it ends successfully.
    fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status:?}, signal {:?}", status.signal());
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends requests that the node logs.
fn nonsense(node: &Lone) {
    for _ in 0..50 {
        let _ = get(&node.endpoint(""), "/v1/nothing");
    }
}

#[test]
fn a_node_serves_though_its_log_cannot_be_written() {
    // The log's reader is gone.
    let mut node = Lone::start("", &["--log-level", "debug"], Stdio::piped());
    drop(node.child.stderr.take());
    nonsense(&node);
    node.eventually("lost lines are counted", || node.metric("cartwheel_log_lines_lost_total") > 0.0);
    assert_eq!(put(&node.endpoint(""), "/v1/kv/b/k", "v").status, 204);
    node.stop();

    // The reader does not read: lines that fit neither into the pipe nor into the queue are dropped.
    let mut node = Lone::start("", &["--log-level", "trace"], Stdio::piped());
    let reader = node.child.stderr.take();
    node.eventually("lost lines are counted", || {
        nonsense(&node);
        node.metric("cartwheel_log_lines_lost_total") > 0.0
    });
    assert_eq!(put(&node.endpoint(""), "/v1/kv/b/k", "v").status, 204);
    node.stop();
    drop(reader);

    // The log's disk is full.
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let node = Lone::start("", &["--log-level", "debug"], full);
        nonsense(&node);
        node.eventually("lost lines are counted", || node.metric("cartwheel_log_lines_lost_total") > 0.0);
        node.stop();
    }
}

#[test]
fn sighup_reopens_the_log_and_ends_no_node() {
    let root = tempfile::tempdir().unwrap();
    let (log, rotated) = (root.path().join("log"), root.path().join("log.1"));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let node = Lone::start("", &["--log-level", "debug"], File::create(&log).unwrap());
    fs::rename(&log, &rotated).unwrap();
    node.signal(Signal::HUP);
    node.eventually("the log is reopened", || read(&log).contains("SIGHUP"));
    let before = read(&rotated);
    nonsense(&node);
    node.eventually("new lines are in the new file", || read(&log).contains("/v1/nothing"));
    assert_eq!(read(&rotated), before);
    node.stop();

    let node = Lone::start("", &[], Stdio::null());
    node.signal(Signal::HUP);
    assert_eq!(put(&node.endpoint(""), "/v1/kv/b/k", "v").status, 204);
    node.stop();
}

#[test]
fn dev_runs_on_after_its_output_is_closed() {
    let (root, (http, peers)) = (tempfile::tempdir().unwrap(), free_bases());
    let mut dev = Command::new(CARTWHEEL)
        .args(["dev", "--shards", "1", "--http-base", &http.to_string(), "--peer-base", &peers.to_string(), "--dir"])
        .arg(root.path().join("data"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut out = dev.stdout.take().unwrap();
    while !said.contains("nodes are ready") {
        let mut byte = [0; 1];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{said}");
        said.push(char::from(byte[0]));
    }
    drop(out);
    let pid = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        Pid::from_raw(line.split_whitespace().nth(3).unwrap().parse().unwrap()).unwrap()
    };
    kill_process(pid("node-3"), Signal::KILL).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(dev.try_wait().unwrap(), None, "dev runs on, though it could not report the dead node");
    assert_eq!(put(&format!("http://127.0.0.1:{}", http + 1), "/v1/kv/b/k", "v").status, 204);
    kill_process(Pid::from_child(&dev), Signal::TERM).unwrap();
    assert!(dev.wait().unwrap().success());
}

/// Sends a request and reads at most 12 bytes of the answer.
fn stopped_reader(node: &Lone, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let _ = stream.read(&mut [0; 12]);
    stream
}

#[test]
fn memory_is_bounded_when_clients_do_not_read_or_do_not_send() {
    let node = Lone::start("", &[], Stdio::null());
    node.set("large", r#"{"max_value_bytes": 16777216, "n": 1, "r": 1, "w": 1}"#);
    node.set("small", r#"{"n": 1, "r": 1, "w": 1, "conflict": "lww"}"#);
    let here = node.endpoint("");
    let value = vec![b'x'; 16 * MIB];
    assert_eq!(raw::call(&here, "PUT", "/v1/kv/large/k", &[], &value).status, 204);
    assert_eq!(put(&here, "/v1/kv/small/k", "v").status, 204);
    let is_served = || put(&here, "/v1/kv/small/k", "v").status == 204 && get(&here, "/v1/kv/small/k").status == 200;
    let before = node.peak_mib();

    // Clients do not read their answers. Some requests are refused.
    let readers: Vec<TcpStream> = (0..50).map(|_| stopped_reader(&node, "/v1/kv/large/k")).collect();
    let held = node.metric("cartwheel_http_answer_bytes") as usize;
    assert!((100 * MIB..=256 * MIB).contains(&held), "{} MiB are held", held / MIB);
    assert!(is_served());
    assert!(node.peak_mib() < before + 450, "{} MiB, {before} before", node.peak_mib());
    drop(readers);
    node.eventually("the memory of unread answers is freed", || node.metric("cartwheel_http_answer_bytes") == 0.0);

    // Answers of several large siblings, in an encoding that is larger still.
    for _ in 0..2 {
        assert_eq!(raw::call(&here, "PUT", "/v1/kv/large/siblings", &[], &value[..15 * MIB]).status, 204);
    }
    let readers: Vec<TcpStream> = (0..16).map(|_| stopped_reader(&node, "/v1/kv/large/siblings")).collect();
    assert!(is_served());
    let peak = node.peak_mib();
    assert!(peak < before + 700, "{peak} MiB, {before} before");
    drop(readers);

    // Values that are announced but not sent take no room from other requests.
    let _uploads: Vec<Unfinished> =
        (0..16).map(|_| Unfinished::begin(&here, "PUT", "/v1/kv/large/k", b"x", 16 * MIB)).collect();
    assert!(is_served());
    assert_eq!(raw::call(&here, "PUT", "/v1/kv/large/other", &[], &value).status, 204);
    assert!(node.metric("cartwheel_http_value_bytes") < MIB as f64);
    node.stop();
}

#[test]
fn a_node_answers_health_and_metrics_however_many_clients_are_connected() {
    let admin = free_bases().0 + 1;
    let listen = format!("127.0.0.1:{admin}");
    let node = Lone::start("ulimit -n 256;", &["--admin-listen", &listen], Stdio::null());
    let idle = || TcpStream::connect(node.addr()).unwrap();
    let mut connections: Vec<TcpStream> = (0..140).map(|_| idle()).collect();
    let about_itself = ["/healthz", "/readyz", "/metrics", "/v1/cluster"];
    for path in about_itself {
        assert_eq!(get(&node.endpoint(""), path).status, 200, "{path}");
        assert_eq!(get(&format!("http://{listen}"), path).status, 200, "{path}");
    }
    // Idle connections are closed to make room for new clients.
    node.eventually("a client is served", || put(&node.endpoint(""), "/v1/kv/b/k", "v").status == 204);
    let closed = connections.iter_mut().filter_map(|connection| {
        connection.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        matches!(connection.read(&mut [0; 1]), Ok(0)).then_some(())
    });
    assert!(closed.count() > 0);
    drop(connections);

    // Where no connection is idle, the node still answers requests about itself, and refuses others with 429.
    let uploads: Vec<Unfinished> = (0..100)
        .map(|_| Unfinished::begin(&node.endpoint(""), "PUT", "/v1/kv/b/k?timeout_ms=60000", b"x", 9))
        .collect();
    for path in about_itself {
        assert_eq!(get(&node.endpoint(""), path).status, 200, "{path}");
    }
    let refused = get(&node.endpoint(""), "/v1/kv/b/k");
    assert_eq!((refused.status, refused.header("connection")), (429, "close"));
    drop(uploads);
    let keys = get(&format!("http://{listen}"), "/v1/kv/b/k");
    assert_eq!(keys.status, 404);
    assert!(keys.text().contains("administrators"), "{}", keys.text());
    node.stop();
}
