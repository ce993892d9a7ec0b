//! Nodes that are started one by one, like an operator's growing cluster.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{CARTWHEEL, PATIENCE, free_bases, status};

/// Nodes by name, each with a directory, a log and two ports of its own.
pub struct Grown {
    root: tempfile::TempDir,
    ports: BTreeMap<String, (u16, u16)>,
    free: Vec<(u16, u16)>,
    running: BTreeMap<String, Child>,
}

impl Grown {
    pub fn new() -> Self {
        let (ports, free, running) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { root: tempfile::tempdir().unwrap(), ports, free, running }
    }

    /// Bootstraps a cluster with the first node; the others join it one after the other.
    pub fn of(names: &[&str]) -> Self {
        let mut nodes = Self::new();
        let (founder, others) = names.split_first().unwrap();
        nodes.founds(founder);
        nodes.wait_for(founder);
        let seed = nodes.peer_addr(founder);
        for name in others {
            nodes.serve(name, &["--seed", &seed, "--join"]);
            nodes.wait_for(name);
        }
        nodes
    }

    fn ports(&mut self, name: &str) -> (u16, u16) {
        if let Some(&ports) = self.ports.get(name) {
            return ports;
        }
        if self.free.is_empty() {
            let (http, peers) = free_bases();
            self.free.extend((1..=3).map(|number| (http + number, peers + number)));
        }
        let ports = self.free.remove(0);
        self.ports.insert(name.to_owned(), ports);
        ports
    }

    /// Assigns new ports to a node, which must not run.
    pub fn moves_house(&mut self, name: &str) {
        self.ports.remove(name);
        self.ports(name);
    }

    /// Starts a node with these further flags of `cartwheel serve`.
    pub fn serve(&mut self, name: &str, args: &[&str]) {
        self.serve_as(name, name, args);
    }

    /// Starts a node that bootstraps a cluster.
    pub fn founds(&mut self, name: &str) {
        self.serve(name, &["--bootstrap", "--cluster-name", "test"]);
    }

    /// Starts a node in the directory `place` under another name.
    pub fn serve_as(&mut self, place: &str, name: &str, args: &[&str]) {
        let (http, peers) = self.ports(place);
        let log = File::options().create(true).append(true).open(self.log_file(place)).unwrap();
        let child = Command::new(CARTWHEEL)
            .args(["serve", "--shards", "2", "--name", name, "--dir"])
            .arg(self.dir(place))
            .args(["--http-listen", &format!("127.0.0.1:{http}"), "--peer-listen", &format!("127.0.0.1:{peers}")])
            .args(args)
            .stderr(log)
            .spawn()
            .unwrap();
        self.running.insert(place.to_owned(), child);
    }

    /// Starts a node that waits to be added, and returns once the node `through` lists it as waiting.
    pub fn waits(&mut self, name: &str, through: &str) {
        let seed = self.peer_addr(through);
        self.serve(name, &["--seed", &seed]);
        self.eventually("the node is listed as waiting", |nodes| {
            nodes.moves(through)["waiting"].as_array().unwrap().iter().any(|waits| waits == name)
        });
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.root.path().join(format!("{name}.log"))
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_file(name)).unwrap()
    }

    pub fn endpoint(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[name].0)
    }

    pub fn peer_addr(&mut self, name: &str) -> String {
        format!("127.0.0.1:{}", self.ports(name).1)
    }

    /// Waits until a node is ready.
    pub fn wait_for(&self, name: &str) {
        let ready = self.endpoint(name) + "/readyz";
        self.eventually("the node is ready", |_| status(&ready) == Some(200));
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until a node ends by itself.
    pub fn ends(&mut self, name: &str) -> ExitStatus {
        let mut child = self.running.remove(name).unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{name} does not end: {}", self.log(name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a node ends with an error, and returns its log.
    pub fn refused(&mut self, name: &str) -> String {
        let status = self.ends(name);
        let log = self.log(name);
        assert!(matches!(status.code(), Some(1 | 2)), "{log}");
        log
    }

    /// Runs `cartwheel cluster ARGS` against the node `through`.
    pub fn run(&self, through: &str, args: &[&str]) -> Output {
        Command::new(CARTWHEEL)
            .arg("cluster")
            .args(args)
            .args(["--node", &self.endpoint(through)])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command as [`Self::run`] does. It must succeed; returns its standard output.
    pub fn done(&self, through: &str, args: &[&str]) -> String {
        let output = self.run(through, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command as [`Self::run`] does. It must fail; returns its standard error.
    pub fn declined(&self, through: &str, args: &[&str]) -> String {
        // A timeout on a busy machine (exit code 4) is not a refusal.
        let begun = Instant::now();
        let mut output = self.run(through, args);
        while output.status.code() == Some(4) && begun.elapsed() < PATIENCE {
            output = self.run(through, args);
        }
        assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn moves(&self, through: &str) -> Value {
        serde_json::from_str(&self.done(through, &["moves", "--json"])).unwrap()
    }

    /// The version of the cluster's membership, as the node `through` knows it.
    pub fn version(&self, through: &str) -> String {
        self.moves(through)["version"].as_str().unwrap().to_owned()
    }

    pub fn eventually(&self, what: &str, mut try_it: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !try_it(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Grown {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
