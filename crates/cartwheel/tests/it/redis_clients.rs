//! Redis clients that others wrote, with the same story each: values, expiry, several keys, a pipeline, and a node that is killed in the middle.
//!
//! Libraries of other languages are where `.ci/redis-clients` installs them. Those that are missing are skipped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redis::{AsyncCommands as _, Cmd, Commands as _, Connection, Pipeline, ProtocolVersion, Value};

use crate::harness::{CARTWHEEL, Cluster, raw};

/// Runs a program that tells its story to node 1, and kills node 3 when it says so. Returns false if it cannot be started.
fn tells_its_story(cluster: &Cluster, mut program: Command) -> bool {
    let started = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else { return false };
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.next();
    if said.as_deref() == Some("kill") {
        cluster.kill(3);
        child.stdin.take().unwrap().write_all(b"killed\n").unwrap();
    }
    let end = lines.next();
    let status = child.wait().unwrap();
    assert!(status.success() && end.as_deref() == Some("done"), "{program:?}: {status}, {said:?}, {end:?}");
    true
}

fn installed() -> PathBuf {
    Path::new(CARTWHEEL).ancestors().nth(2).unwrap().join("redis-clients")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

fn port(cluster: &Cluster) -> String {
    cluster.redis_addr(1).rsplit_once(':').unwrap().1.to_owned()
}

#[test]
fn redis_py() {
    for (version, protocol) in [(5, 2), (6, 3), (7, 2), (8, 3)] {
        let library = installed().join(format!("redis-py-{version}"));
        if !library.is_dir() {
            println!("skipped: redis-py {version} is not installed");
            continue;
        }
        let cluster = Cluster::start();
        let mut program = Command::new("python3");
        program.arg(script("story.py")).args([port(&cluster), protocol.to_string()]).env("PYTHONPATH", library);
        assert!(tells_its_story(&cluster, program), "python3 cannot be started");
    }
}

#[test]
fn node_clients() {
    let library = installed().join("node_modules");
    if !library.is_dir() {
        println!("skipped: ioredis and node-redis are not installed");
        return;
    }
    for (name, protocol) in [("ioredis", 2), ("ioredis", 3), ("node-redis", 2), ("node-redis", 3)] {
        let cluster = Cluster::start();
        let mut program = Command::new("node");
        program.arg(script("story.mjs")).args([port(&cluster), protocol.to_string(), name.to_owned()]);
        assert!(
            tells_its_story(&cluster, {
                program.env("NODE_PATH", &library);
                program
            }),
            "node cannot be started"
        );
    }
}

/// A cluster whose database 0 is placed by hash slot, for cluster clients.
fn slotted() -> Cluster {
    let cluster = Cluster::start();
    let json = [("content-type", "application/json")];
    let set = raw::call(&cluster.endpoint(1), "PUT", "/v1/buckets/redis", &json, br#"{"placement": "slot"}"#);
    assert_eq!(set.status, 200, "{}", set.text());
    cluster
}

#[test]
fn redis_py_as_a_cluster_client() {
    for (version, protocol) in [(5, 2), (6, 3), (7, 2), (8, 3)] {
        let library = installed().join(format!("redis-py-{version}"));
        if !library.is_dir() {
            println!("skipped: redis-py {version} is not installed");
            continue;
        }
        let cluster = slotted();
        let mut program = Command::new("python3");
        program.arg(script("cluster.py")).args([port(&cluster), protocol.to_string()]).env("PYTHONPATH", library);
        assert!(tells_its_story(&cluster, program), "python3 cannot be started");
    }
}

#[test]
fn node_clients_as_cluster_clients() {
    let library = installed().join("node_modules");
    if !library.is_dir() {
        println!("skipped: ioredis and node-redis are not installed");
        return;
    }
    for (name, protocol) in [("ioredis", 2), ("ioredis", 3), ("node-redis", 2), ("node-redis", 3)] {
        let cluster = slotted();
        let mut program = Command::new("node");
        program.arg(script("cluster.mjs")).args([port(&cluster), protocol.to_string(), name.to_owned()]);
        program.env("NODE_PATH", &library);
        assert!(tells_its_story(&cluster, program), "node cannot be started");
    }
}

/// The asynchronous client, because the other one never asks for another map when a connection is refused.
#[test]
fn redis_rs_as_a_cluster_client() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let cluster = slotted();
        let url = format!("redis://{}/", cluster.redis_addr(1));
        let client = redis::cluster::ClusterClient::builder([url]).use_protocol(protocol).build().unwrap();
        runtime.block_on(async {
            let mut connection = client.get_async_connection().await.unwrap();
            for number in 0..200 {
                let () = connection.set(format!("k{number}"), number).await.unwrap();
                if number == 100 {
                    cluster.kill(3);
                }
            }
            for number in 0..200 {
                let value: i64 = connection.get(format!("k{number}")).await.unwrap();
                assert_eq!(value, number);
            }
            let () = connection.mset(&[("{tag}:a", 1), ("{tag}:b", 2)]).await.unwrap();
            let both: Vec<i64> = connection.mget(&["{tag}:a", "{tag}:b"]).await.unwrap();
            assert_eq!(both, [1, 2]);
        });
    }
}

#[test]
fn redis_benchmark_in_cluster_mode() {
    let cluster = slotted();
    let run = Command::new("redis-benchmark")
        .args([
            "-p",
            &port(&cluster),
            "--cluster",
            "-q",
            "-n",
            "3000",
            "-c",
            "20",
            "-P",
            "4",
            "-r",
            "1000",
            "-t",
            "set,get",
        ])
        .output();
    let Ok(run) = run else {
        println!("skipped: redis-benchmark is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("requests per second") && !said.contains("ERR"), "{said}");
}

#[test]
fn redis_benchmark_and_redis_cli() {
    let cluster = Cluster::start();
    let port = port(&cluster);
    for flags in ["-n 2000 -c 20 -t set,get,mset", "-n 5000 -c 20 -P 16 -r 1000 -t set,get", "-3 -n 500 -t ping,get"] {
        let run = Command::new("redis-benchmark").args(["-p", &port, "-q"]).args(flags.split_whitespace()).output();
        let Ok(run) = run else {
            println!("skipped: redis-benchmark is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && said.contains("requests per second") && !said.contains("ERR"), "{said}");
    }
    let cli = |input: &str, flags: &[&str]| {
        let mut child = Command::new("redis-cli")
            .args(["-p", &port])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    for version in [&["-2"][..], &["-3"]] {
        assert_eq!(cli("set a b ex 100\nget a\nttl a\ndel a\nget a\n", version), "OK\nb\n100\n1\n\n");
    }
    assert!(cli("", &["info", "server"]).contains("redis_version"));
}

fn connect(cluster: &Cluster, protocol: ProtocolVersion) -> Connection {
    let suffix = if protocol == ProtocolVersion::RESP3 { "?protocol=resp3" } else { "" };
    let url = format!("redis://{}/{suffix}", cluster.redis_addr(1));
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

#[test]
fn redis_rs() {
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let cluster = Cluster::start();
        let mut client = connect(&cluster, protocol);
        let () = client.set("a", "1").unwrap();
        let value: Option<String> = client.get("a").unwrap();
        assert_eq!(value.as_deref(), Some("1"));
        let none: Option<String> = client.get("none").unwrap();
        assert_eq!(none, None);
        let () = client.set_ex("a", vec![0_u8, 255, 13, 10], 1_000).unwrap();
        let ttl: i64 = client.ttl("a").unwrap();
        assert!((990..=1_000).contains(&ttl), "{ttl}");
        let kept: bool = client.persist("a").unwrap();
        let bytes: Vec<u8> = client.get_del("a").unwrap();
        assert_eq!((kept, bytes), (true, vec![0, 255, 13, 10]));
        let () = client.mset(&[("x", 1), ("y", 2)]).unwrap();
        let both: Vec<Option<i64>> = client.mget(&["x", "y", "z"]).unwrap();
        assert_eq!(both, [Some(1), Some(2), None]);
        let mut pipeline = Pipeline::new();
        for number in 0..500 {
            pipeline.set("p", number).ignore().get("p");
        }
        let seen: Vec<i64> = pipeline.query(&mut client).unwrap();
        assert!(seen.into_iter().eq(0..500));
        let refused: redis::RedisResult<i64> = client.incr("n", 1);
        assert!(refused.unwrap_err().to_string().contains("agree"));
        cluster.kill(3);
        for number in 0..200 {
            let () = client.set(format!("k{number}"), number).unwrap();
        }
        for number in 0..200 {
            let value: i64 = client.get(format!("k{number}")).unwrap();
            assert_eq!(value, number);
        }
        let siblings: Value = Cmd::new().arg("CW.GET").arg("redis").arg("x").query(&mut client).unwrap();
        assert!(matches!(siblings, Value::Array(_)), "{siblings:?}");
    }
}
