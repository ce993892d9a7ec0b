//! A cluster that comes to be node by node, of real processes: nodes come, die in the middle of it, are replaced and leave, and nothing
//! that was written is missed at any time.

mod harness;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use harness::raw::{get, put};
use harness::{CARTWHEEL, free_ports, status};

const PATIENCE: Duration = Duration::from_secs(120);
const KEYS: u32 = 200;

/// One node of the cluster.
struct Node {
    name: &'static str,
    dir: PathBuf,
    http: u16,
    peers: u16,
    process: Option<Child>,
}

impl Node {
    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Starts it so; once it has a directory, how it comes to one does not count.
    fn start(&mut self, how: &[String]) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut serve = Command::new(CARTWHEEL);
        serve.args(["serve", "--name", self.name, "--shards", "2", "--dir"]).arg(&self.dir).args(how).stderr(log);
        for (flag, port) in [("--http-listen", self.http), ("--peer-listen", self.peers)] {
            serve.args([flag, &format!("127.0.0.1:{port}")]);
        }
        self.process = Some(serve.spawn().unwrap());
    }

    fn ready(&self) {
        eventually(&format!("{} is ready", self.name), || status(&(self.endpoint() + "/readyz")) == Some(200));
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// How many partitions it knows to be on their way, and which members to be leaving.
    fn moves(&self) -> (usize, usize) {
        let told = get(&self.endpoint(), "/v1/cluster/moves").json();
        (told["moves"].as_array().unwrap().len(), told["leaving"].as_array().unwrap().len())
    }

    fn write(&self, keys: std::ops::Range<u32>) {
        for key in keys {
            let reply = put(&self.endpoint(), &format!("/v1/kv/carts/{key}?w=2"), &format!("milk {key}"));
            assert_eq!(reply.status, 204, "{}", reply.text());
        }
    }

    fn finds(&self, keys: std::ops::Range<u32>) {
        for key in keys {
            let reply = get(&self.endpoint(), &format!("/v1/kv/carts/{key}?consistency=strong&timeout_ms=30000"));
            assert_eq!((reply.status, reply.text()), (200, format!("milk {key}")), "through {}", self.name);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn eventually(what: &str, mut try_it: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !try_it() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn settled(nodes: &[&Node]) {
    eventually("all is where it is wished", || nodes.iter().all(|node| node.moves() == (0, 0)));
}

fn cartwheel(args: &[&str], through: &Node) -> Output {
    Command::new(CARTWHEEL).args(args).args(["--node", &through.endpoint()]).output().unwrap()
}

fn done(args: &[&str], through: &Node) -> String {
    let output = cartwheel(args, through);
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {told}");
    told
}

fn how(what: &[&str]) -> Vec<String> {
    what.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn nodes_come_die_are_replaced_and_leave_and_nothing_is_missed() {
    let root = tempfile::tempdir().unwrap();
    let ports = free_ports();
    let [mut a, mut b, mut c, mut d, mut e]: [Node; 5] = std::array::from_fn(|number| {
        let name = ["a", "b", "c", "d", "e"][number];
        let [http, peers] = [2 * number, 2 * number + 1].map(|at| ports[at]);
        Node { name, dir: root.path().join(name), http, peers, process: None }
    });
    let seed = format!("127.0.0.1:{}", a.peers);
    a.start(&how(&["--bootstrap"]));
    a.ready();
    for node in [&mut b, &mut c] {
        node.start(&how(&["--seed", &seed, "--join"]));
        node.ready();
    }
    settled(&[&a, &b, &c]);
    b.write(0..KEYS);

    // A fourth is let in. One of those who hand over to it dies, and then it dies itself.
    d.start(&how(&["--seed", &seed]));
    eventually("d waits", || done(&["cluster", "moves"], &c).contains("waiting to be let in: d"));
    done(&["cluster", "add", "d", "--yes"], &c);
    d.ready();
    let on_their_way = |node: &Node| eventually("partitions are on their way", || node.moves().0 > 0);
    on_their_way(&b);
    a.kill();
    b.write(KEYS..2 * KEYS);
    a.start(&[]);
    a.ready();
    on_their_way(&b);
    d.kill();
    b.write(2 * KEYS..3 * KEYS);
    d.start(&[]);
    d.ready();
    settled(&[&a, &b, &c, &d]);

    // One dies for good, and a fresh one takes its place.
    c.kill();
    e.start(&how(&["--seed", &seed]));
    eventually("e waits", || done(&["cluster", "moves"], &a).contains("waiting to be let in: e"));
    done(&["cluster", "replace", "c", "e", "--yes", "--wait"], &a);
    settled(&[&a, &b, &d, &e]);
    e.finds(0..KEYS);

    // The first one leaves: it hands over what it has, and ends in order.
    done(&["cluster", "remove", "a", "--yes", "--wait"], &b);
    let mut leaver = a.process.take().unwrap();
    eventually("a ends", || leaver.try_wait().unwrap().is_some());
    let told = fs::read_to_string(a.log()).unwrap();
    assert!(leaver.wait().unwrap().success() && told.contains("this can be deleted"), "{told}");
    a.start(&[]);
    let refused = a.process.take().unwrap().wait().unwrap();
    let told = fs::read_to_string(a.log()).unwrap();
    assert!(!refused.success() && told.contains("start it with an empty directory"), "{told}");

    settled(&[&b, &d, &e]);
    d.finds(0..3 * KEYS);
    eventually("all replicas are equal", || cartwheel(&["verify", "--settled"], &d).status.success());
}
