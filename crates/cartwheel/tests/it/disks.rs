//! Real nodes on bad disks: flipped bits are detected and healed, and full disks refuse writes until there is room.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Cluster, PATIENCE, eventually};

/// Sends one request; returns the answer's status and body.
fn call(method: &str, url: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let (addr, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head") + 4;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(end))
}

/// Incompressible bytes, different for each number.
fn noise(number: u64, len: usize) -> Vec<u8> {
    let mut x = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The engine's files under `dir`, without its journals.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_none_or(|extension| extension != "jnl")).collect()
}

/// Flips a bit in each occurrence of `bytes` in `files`; returns the number of occurrences.
fn flip(files: &[PathBuf], bytes: &[u8]) -> usize {
    let mut flipped = 0;
    for path in files {
        // Compaction may have removed the file meanwhile.
        let Ok(mut content) = fs::read(path) else { continue };
        let first = bytes[0];
        let mut at = 0;
        while let Some(found) = content[at..].iter().position(|&byte| byte == first) {
            at += found;
            if content[at..].starts_with(bytes) {
                content[at + bytes.len() / 2] ^= 4;
                flipped += 1;
                fs::write(path, &content).unwrap();
            }
            at += 1;
        }
    }
    flipped
}

#[test]
fn a_flipped_bit_is_detected_on_read_healed_and_never_served() {
    let mut cluster = Cluster::start_sharded(1);
    const VALUES: u64 = 96;
    let value = |number: u64| noise(number, if number % 6 == 5 { 200 } else { 1_000_000 });
    // More than a store keeps in memory, so that it writes table files.
    for number in 0..VALUES {
        let url = format!("{}/v1/kv/b/{number}?w=3&timeout_ms=30000", cluster.endpoint(1));
        let (status, body) = call("PUT", &url, &value(number));
        assert_eq!(status, 204, "{}", String::from_utf8_lossy(&body));
    }
    let store = cluster.node_dir(2);
    let part = |number: u64| value(number)[100..132].to_vec();
    let holds = |number: u64| {
        let part = part(number);
        files(&store).iter().any(|path| fs::read(path).is_ok_and(|content| content.windows(32).any(|at| at == part)))
    };
    eventually("records are in table files", || holds(0) && holds(5));
    cluster.kill(2);
    let victims = [0, 5, 12, 30];
    for number in victims {
        assert!(flip(&files(&store), &part(number)) > 0, "{number} is in no table file");
    }
    cluster.restart(2);
    for number in 0..VALUES {
        let url = format!("{}/v1/kv/b/{number}?timeout_ms=30000", cluster.endpoint(2));
        let (status, body) = call("GET", &url, b"");
        assert!(status == 200 && body == value(number), "{number}: {status}");
    }
    let log = fs::read_to_string(cluster.log_of_restarted(2)).unwrap();
    assert!(log.contains("lost a record; fetching it from other replicas"), "{log}");
    let (_, metrics) = call("GET", &format!("{}/metrics", cluster.endpoint(2)), b"");
    let metrics = String::from_utf8(metrics).unwrap();
    let lost = metrics.lines().find_map(|line| line.strip_prefix("cartwheel_records_lost_total ")).unwrap_or("0");
    println!("{lost} records were lost on node-2");
    assert!(lost.parse::<u64>().unwrap() >= victims.len() as u64, "{metrics}");

    // Reads that need all three replicas succeed again.
    for through in 1..=3 {
        for number in 0..VALUES {
            let url = format!("{}/v1/kv/b/{number}?r=3&timeout_ms=30000", cluster.endpoint(through));
            eventually("all replicas agree", || {
                let (status, body) = call("GET", &url, b"");
                assert!(status != 200 || body == value(number), "{number} through node-{through}");
                status == 200
            });
        }
    }
    // node-2 has the healed records on its own disk.
    cluster.kill(1);
    cluster.kill(3);
    for number in victims {
        let (status, body) = call("GET", &format!("{}/v1/kv/b/{number}?r=1", cluster.endpoint(2)), b"");
        assert!(status == 200 && body == value(number), "{number}: {status}");
    }
}

/// A small disk, unmounted when the test ends, even if it fails.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts a small disk over `dir` and keeps the directory's content. `None` where mounting is not permitted.
    fn over(dir: &Path, mib: u64) -> Option<Self> {
        let aside = dir.with_extension("aside");
        fs::rename(dir, &aside).unwrap();
        fs::create_dir(dir).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).status();
        let disk = mounted.is_ok_and(|status| status.success()).then(|| Self(dir.to_path_buf()));
        if disk.is_none() {
            eprintln!("\n*** SKIPPED: mounting a small disk needs root, so full disks are not tested here ***\n");
            return None;
        }
        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(aside.join(".")).arg(dir).status().unwrap();
        assert!(copied.success());
        disk
    }

    fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        found.f_bavail * found.f_frsize
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills the disk until only this much is free.
    fn fill_up_to(&self, free: u64) {
        let ballast = fs::File::options().create(true).append(true).open(self.ballast()).unwrap();
        while let more @ 1.. = self.free().saturating_sub(free) {
            let len = ballast.metadata().unwrap().len();
            // The last page may be in use already.
            if rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), len, more).is_err() {
                return;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A process that still has files open there keeps them until it ends.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A cluster whose node-1 has a small disk.
struct Cramped {
    cluster: Cluster,
    disk: Tmpfs,
    /// The acknowledged keys and values.
    stored: Vec<(String, Vec<u8>)>,
}

impl Cramped {
    fn start() -> Option<Self> {
        let mut cluster = Cluster::start_sharded(1);
        cluster.kill(1);
        let disk = Tmpfs::over(&cluster.node_dir(1), 100)?;
        cluster.restart(1);
        Some(Self { cluster, disk, stored: Vec::new() })
    }

    /// Writes a value of 50 kB under a new key; returns the status and the body.
    fn put(&mut self, through: u16, query: &str) -> (u16, String) {
        let key = format!("k{}", self.stored.len());
        let value = noise(self.stored.len() as u64, 50_000);
        // Without a context: a write that was refused before adds at most a sibling with the same value.
        let (status, body) = call("PUT", &format!("{}/v1/kv/b/{key}?{query}", self.cluster.endpoint(through)), &value);
        if status == 204 {
            self.stored.push((key, value));
        }
        (status, String::from_utf8(body).unwrap())
    }

    fn readyz(&self) -> (u16, String) {
        let (status, body) = call("GET", &format!("{}/readyz", self.cluster.endpoint(1)), b"");
        (status, String::from_utf8(body).unwrap())
    }

    /// Checks that every acknowledged value can be read through every node.
    fn check(&self, query: &str) {
        for (key, value) in &self.stored {
            for through in 1..=3 {
                let url = format!("{}/v1/kv/b/{key}?{query}", self.cluster.endpoint(through));
                eventually("acknowledged values can be read", || {
                    let (status, body) = call("GET", &url, b"");
                    // Siblings have the same value: the write was tried more than once.
                    assert!(status != 200 || body == *value, "{key} through node-{through}");
                    status == 200 || status == 300
                });
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.cluster.log_of_restarted(1)).unwrap()
    }
}

#[test]
fn a_node_refuses_writes_before_its_disk_is_full_and_accepts_them_again_when_there_is_room() {
    let Some(mut cramped) = Cramped::start() else { return };
    for through in 1..=3 {
        assert_eq!(cramped.put(through, "w=3").0, 204);
    }
    // A tenth of the disk is reserved.
    cramped.disk.fill_up_to(8 << 20);
    eventually("a write that needs the full disk is refused", || {
        let (status, said) = cramped.put(1, "w=3");
        assert!(status == 204 || (status == 507 && said.contains("\"disk_full\"")), "{status}: {said}");
        status == 507
    });
    let (status, said) = call("DELETE", &format!("{}/v1/kv/b/k0?w=3", cramped.cluster.endpoint(1)), b"");
    assert_eq!(status, 507, "a delete needs room, too: {}", String::from_utf8_lossy(&said));
    let (status, said) = cramped.readyz();
    assert!(status == 200 && said.contains("disk_full"), "{said}");

    // The other nodes have room. Writes that do not need the full disk succeed through every node, and reads go on.
    for through in 1..=3 {
        assert_eq!(cramped.put(through, "w=2").0, 204);
    }
    cramped.check("r=2");
    // A coordinator that has stored a write must not report it as refused (507). One that knows of the full disk from a recent request does
    // not begin the write.
    std::thread::sleep(Duration::from_millis(1_100));
    let (status, said) = cramped.put(2, "w=3");
    assert!(status == 507 || (status == 503 && said.contains("may yet appear")), "{status}: {said}");
    eventually("a coordinator that knows of the full disk does not begin the write", || {
        let (status, said) = cramped.put(2, "w=3");
        assert!(status == 507 || (status == 503 && said.contains("may yet appear")), "{status}: {said}");
        status == 507
    });

    cramped.disk.make_room();
    eventually("the disk is used again", || cramped.put(1, "w=3").0 == 204);
    eventually("all shards of the node notice the room", || cramped.readyz().1.contains("\"ready\""));
    eventually("the other nodes use the disk again", || cramped.put(2, "w=3").0 == 204);
    cramped.check("r=3");
    let log = cramped.log();
    assert!(!log.contains("store_failed"), "the engine must not run out of disk: {log}");
    assert!((1..=8).contains(&log.matches("disk full; storing no writes").count()), "each shard logs it once: {log}");
}

#[test]
fn a_store_reopens_after_other_programs_filled_the_disk_to_the_last_byte() {
    let Some(mut cramped) = Cramped::start() else { return };
    for _ in 0..5 {
        assert_eq!(cramped.put(1, "w=3").0, 204);
    }
    // The node checks the disk ten times a second. A program that fills it between two checks makes the engine fail.
    eventually("the engine runs out of disk", || {
        cramped.disk.fill_up_to(0);
        for _ in 0..3 {
            cramped.put(1, "w=2");
        }
        let failed = cramped.log().contains("store_failed");
        if !failed {
            cramped.disk.make_room();
            eventually("there is room again", || cramped.put(1, "w=3").0 == 204);
        }
        failed
    });
    // The other nodes serve requests meanwhile.
    eventually("the other nodes accept writes", || cramped.put(2, "w=2").0 == 204);
    cramped.check("r=2");
    cramped.disk.make_room();
    eventually("the store is open again", || cramped.readyz().1.contains("\"ready\""));
    assert!(cramped.log().contains("store is open again"));
    eventually("the node accepts writes", || cramped.put(1, "w=3").0 == 204);
    cramped.check("r=3");

    // The node's records are on its disk: they survive a kill.
    cramped.cluster.kill_restarted();
    cramped.cluster.restart(1);
    cramped.check("r=3");
}

#[test]
fn a_node_starts_on_a_full_disk_and_serves_its_records() {
    let Some(mut cramped) = Cramped::start() else { return };
    for _ in 0..5 {
        assert_eq!(cramped.put(1, "w=3").0, 204);
    }
    cramped.cluster.kill_restarted();
    cramped.disk.fill_up_to(0);
    for _ in 0..3 {
        cramped.cluster.restart(1);
        eventually("the node reports that its disk is full", || cramped.readyz().1.contains("disk_full"));
        cramped.check("r=3");
        cramped.cluster.kill_restarted();
    }
    cramped.disk.make_room();
    cramped.cluster.restart(1);
    eventually("the node accepts writes", || cramped.put(1, "w=3").0 == 204);
    cramped.check("r=3");
}
