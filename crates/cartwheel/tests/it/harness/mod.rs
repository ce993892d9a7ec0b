//! Clusters of real processes, which are killed when a test ends, even if it fails.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod grown;
pub mod raw;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cartwheel_client::{Client, Siblings};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// The limit for every wait. It is long, because a test checks that something happens, not how fast the machine is.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Tries again until it is so, for [`PATIENCE`]: much happens in the background.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The path of the binary under test.
pub const CARTWHEEL: &str = env!("CARGO_BIN_EXE_cartwheel");

/// The members of a set whose values list one member a line: the union of all siblings, in order.
pub fn members(siblings: &Siblings) -> Vec<String> {
    let texts = siblings.values.iter().map(|value| String::from_utf8_lossy(&value.bytes).into_owned());
    let mut all: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    all.sort();
    all.dedup();
    all
}

/// Three nodes under `cartwheel dev`.
pub struct Cluster {
    dir: PathBuf,
    /// Node i listens for HTTP on this port plus i.
    http_base: u16,
    dev: Child,
    pids: Vec<Pid>,
    restarted: Vec<(u16, Child)>,
    _root: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Bootstraps a cluster and waits until it is ready.
    pub fn start() -> Self {
        // More than one shard, so that every test covers the routing of requests and answers to shards.
        Self::start_sharded(2)
    }

    /// Bootstraps a cluster with this number of shards for each node, and waits until it is ready.
    pub fn start_sharded(shards: u32) -> Self {
        Self::start_with(&["--shards", &shards.to_string()])
    }

    /// Bootstraps a cluster with these flags of `cartwheel dev`, and waits until it is ready.
    pub fn start_with(flags: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        let (http_base, peer_base) = free_bases();
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut cluster = Self::run_dev(&dir, http_base, &[&flags[..], &at(http_base, peer_base)[..]].concat());
        cluster._root = Some(root);
        cluster
    }

    /// Runs `cartwheel dev` until all nodes are ready. Their HTTP ports follow `http_base`.
    fn run_dev(dir: &Path, http_base: u16, flags: &[String]) -> Self {
        let mut dev =
            Command::new(CARTWHEEL).args(["dev", "--dir"]).arg(dir).args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines().map(Result::unwrap);
        let (mut said, mut pids) = (String::new(), Vec::new());
        for line in lines.by_ref() {
            if line.starts_with("node-") {
                let pid = line.split_whitespace().nth(3).unwrap().parse().unwrap();
                pids.push(Pid::from_raw(pid).unwrap());
            }
            said.push_str(&line);
            if line.contains("nodes are ready") {
                break;
            }
        }
        // The rest of its output is read, so that it never blocks on a full pipe.
        std::thread::spawn(move || lines.count());
        let cluster = Self { dir: dir.to_path_buf(), http_base, dev, pids, restarted: Vec::new(), _root: None };
        assert!(said.contains("all 3 nodes are ready"), "{said}");
        cluster
    }

    /// The data directory of node `number`, counted from 1.
    pub fn node_dir(&self, number: u16) -> PathBuf {
        self.dir.join(format!("node-{number}"))
    }

    /// The address of node `number`.
    pub fn endpoint(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.http_base + number)
    }

    /// The address of node `number` for Redis clients.
    pub fn redis_addr(&self, number: u16) -> String {
        format!("127.0.0.1:{}", self.http_base + 8 + number)
    }

    /// The addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        (1..=3).map(|number| self.endpoint(number)).collect()
    }

    /// A client that sends all requests to node `number`.
    pub fn client(&self, number: u16) -> Client {
        Client::new([self.endpoint(number)]).unwrap().without_routing()
    }

    /// A client that knows all nodes.
    pub fn client_of_all(&self) -> Client {
        Client::new(self.endpoints()).unwrap()
    }

    /// Kills node `number`, which must not have been restarted, with SIGKILL, and waits until it is gone.
    pub fn kill(&self, number: u16) {
        assert!(!self.restarted.iter().any(|&(restarted, _)| restarted == number), "use `stop` for a restarted node");
        let pid = self.pids[usize::from(number) - 1];
        kill_process(pid, Signal::KILL).unwrap();
        assert!(gone(pid), "node-{number} survived SIGKILL");
    }

    /// The id of the process that `cartwheel dev` started for node `number`.
    pub fn pid(&self, number: u16) -> u32 {
        self.pids[usize::from(number) - 1].as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to the process that `cartwheel dev` started for node `number`.
    pub fn signal(&self, number: u16, signal: Signal) {
        kill_process(self.pids[usize::from(number) - 1], signal).unwrap();
    }

    /// The log file of a restarted node. It is not in the node's directory, whose disk may be full.
    pub fn log_of_restarted(&self, number: u16) -> PathBuf {
        self.dir.with_file_name(format!("node-{number}.log"))
    }

    /// Restarts node `number` with `cartwheel serve`, and waits until it is ready.
    pub fn restart(&mut self, number: u16) {
        self.start_as(number, Command::new(CARTWHEEL));
        self.wait_for(number);
    }

    /// Restarts node `number` without waiting for it.
    pub fn restart_unready(&mut self, number: u16) {
        self.start_as(number, Command::new(CARTWHEEL));
    }

    /// Restarts node `number` with this limit of open files, and waits until it is ready.
    pub fn restart_with_files(&mut self, number: u16, files: u32) {
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), CARTWHEEL]);
        self.start_as(number, limited);
        self.wait_for(number);
    }

    fn start_as(&mut self, number: u16, mut serve: Command) {
        let log = File::options().create(true).append(true).open(self.log_of_restarted(number)).unwrap();
        serve.args(["serve", "--dir"]).arg(self.node_dir(number)).stderr(log);
        self.restarted.push((number, serve.spawn().unwrap()));
    }

    /// Restarts node `number` with these flags of `cartwheel serve`, and waits until it is ready.
    pub fn restart_with_flags(&mut self, number: u16, flags: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_of_restarted(number)).unwrap();
        let mut serve = Command::new(CARTWHEEL);
        serve.args(["serve", "--dir"]).arg(self.node_dir(number)).args(flags).stderr(log);
        self.restarted.push((number, serve.spawn().unwrap()));
        self.wait_for(number);
    }

    /// Restarts node `number` with another build of the program, and waits until it is ready.
    pub fn restart_with(&mut self, number: u16, build: &Path) {
        self.start_as(number, Command::new(build));
        self.wait_for(number);
    }

    /// Ends the latest process of node `number` with `signal`, and waits until it is gone.
    pub fn stop(&mut self, number: u16, signal: Signal) {
        match self.restarted.iter().position(|&(restarted, _)| restarted == number) {
            Some(at) => {
                let (_, mut child) = self.restarted.remove(at);
                kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
                child.wait().unwrap();
            }
            None => {
                let pid = self.pids[usize::from(number) - 1];
                kill_process(pid, signal).unwrap();
                assert!(gone(pid), "node-{number} did not end");
            }
        }
    }

    /// Waits until a node is ready.
    pub fn wait_for(&self, number: u16) {
        let ready = self.endpoint(number) + "/readyz";
        let begun = Instant::now();
        while status(&ready) != Some(200) {
            assert!(begun.elapsed() < PATIENCE, "node-{number} is not ready within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills all restarted nodes with SIGKILL, and waits until they are gone.
    pub fn kill_restarted(&mut self) {
        for (_, mut child) in self.restarted.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to `cartwheel dev`, waits for its end and returns its exit status.
    pub fn end_dev(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_raw(self.dev.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.dev.wait().unwrap()
    }

    /// Whether all node processes that `cartwheel dev` started end.
    pub fn all_gone(&self) -> bool {
        self.pids.iter().all(|&pid| gone(pid))
    }

    /// Kills every process of the cluster with SIGKILL at once, then restarts them on the same data.
    pub fn crash_and_restart(mut self) -> Self {
        self.kill_all();
        assert!(self.all_gone());
        let mut cluster = Self::run_dev(&self.dir, self.http_base, &[]);
        cluster._root = self._root.take();
        cluster
    }

    /// Stops `cartwheel dev` and runs it again with other ports.
    pub fn moved(mut self) -> Self {
        self.end_dev(Signal::TERM);
        let (http_base, peer_base) = free_bases();
        let mut cluster = Self::run_dev(&self.dir, http_base, &at(http_base, peer_base));
        cluster._root = self._root.take();
        cluster
    }

    fn kill_all(&mut self) {
        for &pid in &self.pids {
            let _ = kill_process(pid, Signal::KILL);
        }
        for child in self.restarted.iter_mut().map(|(_, child)| child).chain([&mut self.dev]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// The flags of `cartwheel dev` for these base ports.
fn at(http_base: u16, peer_base: u16) -> [String; 6] {
    let flag = |name: &str| name.to_owned();
    [
        flag("--http-base"),
        http_base.to_string(),
        flag("--peer-base"),
        peer_base.to_string(),
        flag("--resp-base"),
        (peer_base + 4).to_string(),
    ]
}

/// The status of a GET; `None` without an answer.
pub fn status(url: &str) -> Option<u16> {
    use std::io::{Read as _, Write as _};
    let (addr, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut stream = std::net::TcpStream::connect(addr).ok()?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    std::str::from_utf8(&answer[9..]).ok()?.parse().ok()
}

fn gone(pid: Pid) -> bool {
    let begun = Instant::now();
    // A killed child stays a zombie until its parent has waited for it, which `dev` does at once.
    while test_kill_process(pid).is_ok() {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Base ports for HTTP and peers; that for Redis clients is four above the latter. The three ports after each are free, and no other test of this process tries them.
pub fn free_bases() -> (u16, u16) {
    /// The offset of this process's first port, and the number of ports tried since: tests that run side by side must not find the same
    /// ports free.
    static START: OnceLock<u32> = OnceLock::new();
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let start = *START.get_or_init(|| getrandom::u32().unwrap() % 18_000);
        let base = 12_000 + ((start + TRIED.fetch_add(12, Ordering::Relaxed)) % 18_000) as u16;
        if (base..=base + 11).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return (base, base + 4);
        }
    }
}
