//! Idle client connections cannot use up the file descriptors that the store needs.

use std::net::TcpStream;
use std::time::Duration;

use crate::harness::Cluster;
use crate::harness::raw::{get, put};

const FILES: u32 = 256;

/// The number of files that a process has open, once it is stable for a while.
fn open_files(pid: u64) -> usize {
    let count = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let (mut last, mut calm) = (count(), 0);
    while calm < 20 {
        std::thread::sleep(Duration::from_millis(20));
        let now = count();
        calm = if now == last { calm + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn idle_clients_do_not_use_up_all_file_descriptors() {
    let mut cluster = Cluster::start();
    cluster.kill(2);
    cluster.restart_with_files(2, FILES);
    let endpoint = cluster.endpoint(2);
    let pid = get(&endpoint, "/healthz").json()["pid"].as_u64().unwrap();
    let addrs = [endpoint.strip_prefix("http://").unwrap().to_owned(), cluster.redis_addr(2)];
    // More than half of the limit. Connections that the node does not accept wait in the system's queue.
    let idle: Vec<TcpStream> =
        addrs.iter().cycle().take(FILES as usize - 60).map(|addr| TcpStream::connect(addr).unwrap()).collect();
    let open = open_files(pid);
    assert!((FILES as usize / 2..FILES as usize * 3 / 4).contains(&open), "{open} of {FILES} files are open");
    let written = put(&cluster.endpoint(1), "/v1/kv/b/k?w=3", "v");
    assert_eq!((written.status, written.header("cartwheel-acks")), (204, "home=3 standin=0 zones=1"));
    drop(idle);
    assert_eq!(get(&endpoint, "/v1/kv/b/k").text(), "v");
    let log = std::fs::read_to_string(cluster.log_of_restarted(2)).unwrap();
    assert!(log.contains("files=256"), "{log}");
}
