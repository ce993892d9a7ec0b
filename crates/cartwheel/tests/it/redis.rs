//! The Redis API: the same commands to a Redis server and to a cluster have the same replies; and what Redis does not have.
//!
//! The comparison needs `redis-server`. Intended differences: Cartwheel has strings only and none of the commands that depend on the present value; keys
//! have 1 to 4,096 bytes; `HELLO` and `INFO` describe Cartwheel; `COMMAND` lists its own commands; `WAIT` does not wait; `OBJECT IDLETIME` counts from
//! the write; `OBJECT REFCOUNT` is 1;
//! `MEMORY USAGE` counts bytes on the disk.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use crate::harness::raw::{call, set_bucket};
use crate::harness::{Cluster, PATIENCE, eventually};

/// A connection with the Redis protocol.
struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn to(addr: &str) -> Self {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(addr) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return Self { stream: BufReader::new(stream) };
                }
                Err(error) if begun.elapsed() > PATIENCE => panic!("{addr}: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The bytes of one reply.
    fn reply(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        self.read(&mut reply);
        reply
    }

    fn read(&mut self, reply: &mut Vec<u8>) {
        let start = reply.len();
        self.stream.read_until(b'\n', reply).unwrap();
        let line = String::from_utf8_lossy(&reply[start..]).into_owned();
        assert!(line.ends_with("\r\n"), "the connection ended: {line:?}");
        let count = || line[1..].trim().parse::<i64>().unwrap();
        let elements = match line.as_bytes()[0] {
            b'$' | b'=' if count() >= 0 => {
                let mut bytes = vec![0; count() as usize + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                reply.extend_from_slice(&bytes);
                0
            }
            b'*' | b'~' | b'>' => count(),
            b'%' => 2 * count(),
            _ => 0,
        };
        (0..elements).for_each(|_| self.read(reply));
    }

    fn call(&mut self, words: &[&[u8]]) -> String {
        self.send(&encoded(words));
        String::from_utf8_lossy(&self.reply()).into_owned()
    }

    fn says(&mut self, line: &str) -> String {
        self.call(&line.split_whitespace().map(str::as_bytes).collect::<Vec<_>>())
    }
}

fn encoded(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The requests of commands that are sent at once.
fn pipelined(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| encoded(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())).collect()
}

/// A Redis server, which is killed when it is dropped.
struct Redis {
    child: Child,
    addr: String,
    _dir: tempfile::TempDir,
}

impl Redis {
    /// None if `redis-server` is not installed.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Self { child, addr: format!("127.0.0.1:{port}"), _dir: dir }),
            Err(error) => {
                println!("skipped: cannot start redis-server: {error}");
                None
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command of random words, mostly a sensible one.
fn random_command(rng: &mut Rng) -> Vec<Vec<u8>> {
    let key = |rng: &mut Rng| format!("k{}", rng.u8(0..6));
    let number = |rng: &mut Rng| {
        let numbers = [
            "0",
            "1",
            "-1",
            "2",
            "-3",
            "100",
            "-100",
            "9223372036854775807",
            "-9223372036854775808",
            "x",
            "1.5",
            "",
            "01",
        ];
        rng.choice(numbers).unwrap().to_owned()
    };
    let value = |rng: &mut Rng| match rng.u8(0..6) {
        0 => number(rng),
        1 => "v".repeat(rng.usize(0..60)),
        2 => "long ".repeat(rng.usize(0..10_000)),
        3 => "\0\r\n\u{e4}$*".to_owned(),
        _ => format!("value {}", rng.u32(..)),
    };
    // In the year 2100, or in the past.
    let at = |rng: &mut Rng| rng.choice(["4102444800", "4102444800123", "4102444801", "1", "-5"]).unwrap().to_owned();
    let condition =
        |rng: &mut Rng| rng.choice(["", "", "NX", "xx", "GT", "lt", "GT LT", "NX XX", "bad"]).unwrap().to_owned();
    let mut words: Vec<String> = Vec::new();
    let mut say = |word: &str| words.extend([word.to_owned()]);
    let mut options = String::new();
    match rng.u8(0..42) {
        40 => ["DBSIZE"].into_iter().for_each(&mut say),
        41 => {
            options = rng.choice(["FLUSHDB", "FLUSHALL", "flushdb async", "FLUSHALL BAD"]).unwrap().to_owned();
        }
        0..=4 => ["GET", &key(rng)].into_iter().for_each(&mut say),
        5..=9 => {
            ["set", &key(rng), &value(rng)].into_iter().for_each(&mut say);
            options = rng
                .choice([
                    "",
                    "",
                    "KEEPTTL",
                    "GET",
                    "EXAT 4102444800",
                    "pxat 4102444800123",
                    "EX 0",
                    "EX x",
                    "PX",
                    "EX 1 PX 1",
                    "KEEPTTL EX 1",
                    "bad",
                ])
                .unwrap()
                .to_owned();
        }
        10 => ["SETEX", &key(rng), rng.choice(["0", "-1", "x", "9223372036854775807"]).unwrap(), "v"]
            .into_iter()
            .for_each(&mut say),
        11 => ["PSETEX", &key(rng), rng.choice(["0", "-1", "x", "9223372036854775807"]).unwrap(), "v"]
            .into_iter()
            .for_each(&mut say),
        12 => ["GETDEL", &key(rng)].into_iter().for_each(&mut say),
        13 | 14 => {
            ["GETEX", &key(rng)].into_iter().for_each(&mut say);
            options = rng
                .choice(["", "PERSIST", "EXAT 4102444800", "EX 0", "EX", "PXAT x", "PERSIST EX 1"])
                .unwrap()
                .to_owned();
        }
        15 => ["mget", &key(rng), &key(rng), "none"].into_iter().for_each(&mut say),
        16 => ["MSET", &key(rng), &value(rng), &key(rng), &value(rng)].into_iter().for_each(&mut say),
        17 => ["MSET", &key(rng), "1", &key(rng)].into_iter().for_each(&mut say),
        18 => ["STRLEN", &key(rng)].into_iter().for_each(&mut say),
        19 | 20 => ["GETRANGE", &key(rng), &number(rng), &number(rng)].into_iter().for_each(&mut say),
        21 => ["DEL", &key(rng), &key(rng)].into_iter().for_each(&mut say),
        22 => ["UNLINK", &key(rng)].into_iter().for_each(&mut say),
        23 => ["EXISTS", &key(rng), &key(rng), &key(rng)].into_iter().for_each(&mut say),
        24 => ["TOUCH", &key(rng), &key(rng)].into_iter().for_each(&mut say),
        25 => ["TYPE", &key(rng)].into_iter().for_each(&mut say),
        26..=28 => {
            let name = rng.choice(["EXPIREAT", "pexpireat"]).unwrap();
            [name, &key(rng), &at(rng)].into_iter().for_each(&mut say);
            options = condition(rng);
        }
        29 => {
            let name = rng.choice(["EXPIRE", "PEXPIRE"]).unwrap();
            [name, &key(rng), rng.choice(["-1", "0", "x", "9223372036854775807", "-9223372036854775808"]).unwrap()]
                .into_iter()
                .for_each(&mut say);
            options = condition(rng);
        }
        30 | 31 => [rng.choice(["EXPIRETIME", "PEXPIRETIME"]).unwrap(), &key(rng)].into_iter().for_each(&mut say),
        32 => ["PERSIST", &key(rng)].into_iter().for_each(&mut say),
        33 => ["OBJECT", rng.choice(["ENCODING", "FREQ", "BAD"]).unwrap(), &key(rng)].into_iter().for_each(&mut say),
        34 => ["SELECT", rng.choice(["0", "1", "15", "16", "-1", "x"]).unwrap()].into_iter().for_each(&mut say),
        35 => ["GETSET", &key(rng), &value(rng)].into_iter().for_each(&mut say),
        36 => ["ECHO", &value(rng)].into_iter().for_each(&mut say),
        37 => ["PING", &value(rng)].into_iter().for_each(&mut say),
        38 => [rng
            .choice(["GET", "SET", "TTL", "MGET", "EXPIRE", "GETRANGE", "ECHO", "SELECT", "OBJECT", "NOSUCH"])
            .unwrap()]
        .into_iter()
        .for_each(&mut say),
        _ => [rng.choice(["NOSUCH", "GET", "TTL", "PERSIST"]).unwrap(), "a", "b c", "d"].into_iter().for_each(&mut say),
    }
    words.extend(options.split_whitespace().map(str::to_owned));
    words.into_iter().map(String::into_bytes).collect()
}

#[test]
fn random_commands_have_the_replies_of_redis() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::start();
    let seed = getrandom::u64().unwrap();
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for version in ["2", "3"] {
        let (mut theirs, mut ours) = (Connection::to(&redis.addr), Connection::to(&cluster.redis_addr(1)));
        for connection in [&mut theirs, &mut ours] {
            connection.says(&format!("HELLO {version}"));
        }
        compare_random_commands(&mut rng, 300, &mut theirs, &mut ours);
    }
}

/// Sends both the same random commands, a few at a time, and compares the replies.
fn compare_random_commands(rng: &mut Rng, batches: usize, theirs: &mut Connection, ours: &mut Connection) {
    for _ in 0..batches {
        let batch: Vec<_> = (0..rng.usize(1..8)).map(|_| random_command(rng)).collect();
        let bytes: Vec<u8> =
            batch.iter().flat_map(|words| encoded(&words.iter().map(|word| &word[..]).collect::<Vec<_>>())).collect();
        theirs.send(&bytes);
        ours.send(&bytes);
        for words in &batch {
            let (expected, got) = (theirs.reply(), ours.reply());
            let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
            let command = shown(&words.join(&b' '));
            assert!(got == expected, "{command}: {:?} instead of {:?}", shown(&got), shown(&expected));
        }
    }
}

/// With R=1 a home answers a GET at once. With W=3 it has all that was written before.
#[test]
fn reads_that_are_answered_at_once_have_the_replies_of_redis() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::start();
    assert_eq!(set_bucket(&cluster.endpoint(1), "redis", r#"{"r": 1, "w": 3}"#).status, 200);
    let seed = getrandom::u64().unwrap();
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let long = "l".repeat(20_000);
    for version in ["2", "3"] {
        let (mut theirs, mut ours) = (Connection::to(&redis.addr), Connection::to(&cluster.redis_addr(1)));
        for connection in [&mut theirs, &mut ours] {
            connection.says(&format!("HELLO {version}"));
        }
        compare_random_commands(&mut rng, 200, &mut theirs, &mut ours);
        for pipeline in [
            &["SET p 1", "GET p", "gEt p", "GET nosuch", "GET p", "SET p 2", "GET p", "DEL p", "GET p"][..],
            &[
                "SET p 1",
                "CLIENT REPLY SKIP",
                "GET p",
                "GET p",
                "CLIENT REPLY OFF",
                "GET p",
                "CLIENT REPLY ON",
                "GET p",
            ],
            &["SET p 1", &format!("SET long {long}"), "GET long", "GET p", "GET long", "STRLEN long", "GET p x", "GET"],
            &[
                "SET p 1 PXAT 1",
                "GET p",
                "SET p 1 EX 100",
                "GET p",
                "SELECT 1",
                "GET p",
                "SELECT 0",
                "GET p",
                "FLUSHALL",
                "GET p",
            ],
        ] {
            let bytes = pipelined(&[pipeline, &["ECHO end"]].concat());
            let [expected, got] = [&mut theirs, &mut ours].map(|connection| {
                connection.send(&bytes);
                let mut replies = vec![connection.reply()];
                while replies.last().is_some_and(|reply| reply != b"$3\r\nend\r\n") {
                    replies.push(connection.reply());
                }
                replies
            });
            assert!(got == expected, "{}", pipeline[1]);
        }
    }
    let counted = || {
        let metrics = crate::harness::raw::get(&cluster.endpoint(1), "/metrics").text();
        let name = "cartwheel_requests_total{operation=\"get\",outcome=\"ok\"}";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("no {name}"))
    };
    let mut ours = Connection::to(&cluster.redis_addr(1));
    ours.says("SET p 1");
    let before = counted();
    (0..10).for_each(|_| assert_eq!(ours.says("GET p"), "$1\r\n1\r\n"));
    assert_eq!(counted() - before, 10);
}

#[test]
fn these_commands_have_the_replies_of_redis() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::start();
    for version in ["2", "3"] {
        let (mut theirs, mut ours) = (Connection::to(&redis.addr), Connection::to(&cluster.redis_addr(2)));
        for connection in [&mut theirs, &mut ours] {
            connection.says(&format!("HELLO {version}"));
        }
        for command in [
            "CLIENT GETNAME",
            "CLIENT SETNAME me",
            "CLIENT GETNAME",
            "CLIENT SETNAME a\tb",
            "CLIENT SETNAME \u{e4}",
            "CLIENT NO-EVICT on",
            "CLIENT NO-EVICT x",
            "CLIENT REPLY x",
            "CLIENT KILL 1.2.3.4:5",
            "CLIENT LIST ID 0",
            "CLIENT LIST TYPE x",
            "CLIENT NOSUCH",
            "CLIENT GETNAME x",
            "COMMAND GETKEYS GET a",
            "COMMAND GETKEYS MSET a 1 b 2",
            "COMMAND GETKEYS PING",
            "COMMAND GETKEYS NOSUCH a",
            "COMMAND GETKEYS GET",
            "COMMAND INFO nosuch",
            "COMMAND NOSUCH",
            "CONFIG GET save",
            "CONFIG GET nosuch",
            "CONFIG GET databases",
            "CONFIG GET timeout",
            "CONFIG NOSUCH",
            "FUNCTION FLUSH",
            "FUNCTION FLUSH SYNC",
            "FUNCTION FLUSH BAD",
            "ACL WHOAMI",
            "AUTH x",
            "AUTH x y",
            "AUTH default y",
            "AUTH a b c",
            "HELLO 4",
            "HELLO x",
            "HELLO 2 NOSUCH",
            "HELLO 2 AUTH x y",
            "WAIT x 0",
            "WAIT 0 x",
            "WAIT 0 -1",
            "MEMORY USAGE nosuch",
            "MEMORY USAGE nosuch SAMPLES x",
            "MEMORY NOSUCH",
            "OBJECT ENCODING nosuch",
            "SCAN x",
            "SCAN -1",
            "SCAN 0 COUNT 0",
            "SCAN 0 COUNT x",
            "SCAN 0 BAD",
            "SCAN 0 MATCH",
            "SCAN",
            "KEYS",
            "KEYS nosuch*",
            "DBSIZE x",
            "FLUSHDB BAD",
            "CLUSTER INFO",
            "PING a b",
            "SET",
            "ECHO",
            "RESET",
            "CLIENT GETNAME",
        ] {
            let (expected, got) = (theirs.says(command), ours.says(command));
            assert_eq!(got, expected, "{command}, RESP{version}");
        }
    }
    for bytes in [
        "*1\r\nPING\r\n",
        "*a\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$999999999999\r\n",
        "GET \"a\r\n",
        "*2000000000000\r\n",
        "\"a\"b\r\n",
    ] {
        let [expected, got] = [&redis.addr, &cluster.redis_addr(3)].map(|addr| {
            let mut connection = Connection::to(addr);
            connection.send(b"PING\r\n");
            connection.send(bytes.as_bytes());
            let mut all = String::new();
            connection.stream.read_to_string(&mut all).unwrap();
            all
        });
        assert_eq!(got, expected, "{bytes:?}");
    }
}

/// The elements of an array of bulk strings, sorted.
fn elements(reply: &str) -> Vec<String> {
    let mut lines = reply.lines().skip(1);
    let mut elements = Vec::new();
    while let (Some(_), Some(element)) = (lines.next(), lines.next()) {
        elements.push(element.to_owned());
    }
    elements.sort();
    elements
}

/// All keys that SCAN shows, sorted.
fn scanned(connection: &mut Connection, options: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let page = connection.says(&format!("SCAN {cursor} {options}"));
        // An array of the cursor and an array.
        let mut lines = page.splitn(4, "\r\n").skip(2);
        cursor = lines.next().unwrap().to_owned();
        all.extend(elements(lines.next().unwrap()));
        if cursor == "0" {
            all.sort();
            return all;
        }
    }
}

#[test]
fn keys_are_listed_and_flushed_as_in_redis() {
    let Some(redis) = Redis::start() else { return };
    let cluster = Cluster::start();
    let (mut theirs, mut ours) = (Connection::to(&redis.addr), Connection::to(&cluster.redis_addr(1)));
    for connection in [&mut theirs, &mut ours] {
        for number in 0..300 {
            connection.says(&format!("SET key:{number} {number}"));
        }
        for command in ["SET {a}[x]*? v", "SET gone v PX 1", "DEL key:7", "SELECT 2", "SET other v", "SELECT 0"] {
            connection.says(command);
        }
    }
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(ours.says("GET gone"), theirs.says("GET gone"));
    for pattern in ["*", "key:1?", "key:[2-4]*", "*[[]x]*", "\\{a}*", "nosuch*", "key:[^0-9]"] {
        let keys = |connection: &mut Connection| elements(&connection.says(&format!("KEYS {pattern}")));
        assert_eq!(keys(&mut ours), keys(&mut theirs), "{pattern}");
        for options in [
            format!("MATCH {pattern}"),
            format!("MATCH {pattern} COUNT 1000"),
            format!("COUNT 3 MATCH {pattern} TYPE string"),
        ] {
            assert_eq!(scanned(&mut ours, &options), scanned(&mut theirs, &options), "{options}");
        }
    }
    assert_eq!(scanned(&mut ours, "TYPE list"), scanned(&mut theirs, "TYPE list"));
    let random = ours.says("RANDOMKEY");
    assert!(random.contains("key:") || random.contains("{a}"), "{random}");
    // In one pipeline, each command sees what the ones before it have done.
    for pipeline in [
        &["SET p 1", "FLUSHDB", "GET p", "SET p 2", "DBSIZE", "SCAN 0", "SELECT 2", "DBSIZE", "SELECT 0"][..],
        &[
            "FLUSHALL",
            "DBSIZE",
            "SELECT 2",
            "DBSIZE",
            "SELECT 0",
            "SET q 1",
            "KEYS *",
            "RANDOMKEY",
            "FLUSHALL ASYNC",
            "RANDOMKEY",
        ],
    ] {
        let bytes = pipelined(pipeline);
        for connection in [&mut theirs, &mut ours] {
            connection.send(&bytes);
        }
        for command in pipeline {
            assert_eq!(ours.reply(), theirs.reply(), "{command}");
        }
    }
}

#[test]
fn any_node_answers_while_another_one_is_killed() {
    let cluster = Cluster::start();
    let mut first = Connection::to(&cluster.redis_addr(1));
    for number in 0..200 {
        assert_eq!(first.says(&format!("SET k{number} {number} EX 1000")), "+OK\r\n");
        if number == 100 {
            cluster.kill(3);
        }
    }
    let mut second = Connection::to(&cluster.redis_addr(2));
    for number in 0..200 {
        let value = number.to_string();
        assert_eq!(second.says(&format!("GET k{number}")), format!("${}\r\n{value}\r\n", value.len()));
    }
    assert_eq!(second.says("WAIT 1 100"), ":0\r\n", "this connection has written nothing");
    assert_eq!(first.says("WAIT 1 100"), ":1\r\n");
    // Both APIs show the same keys.
    let http = crate::harness::raw::get(&cluster.endpoint(2), "/v1/kv/redis/k7");
    assert_eq!((http.status, http.text()), (200, "7".to_owned()));
    assert!(!http.header("cartwheel-ttl").is_empty());
    assert_eq!(http.header("content-type"), "application/octet-stream");
}

#[test]
fn clients_that_go_by_slots_leave_a_node_that_drains() {
    let cluster = Cluster::start();
    assert_eq!(set_bucket(&cluster.endpoint(1), "redis", r#"{"placement": "slot"}"#).status, 200);
    let [mut first, mut second] = [1, 2].map(|number| Connection::to(&cluster.redis_addr(number)));
    let addr = cluster.redis_addr(2);
    let is_first = |of: &mut Connection| {
        let nodes = of.says("CLUSTER NODES");
        let line = nodes.lines().find(|line| line.contains(&addr)).unwrap_or_else(|| panic!("{nodes}"));
        !line.trim().ends_with("connected")
    };
    eventually("slots go to node-2", || is_first(&mut first) && is_first(&mut second));
    eventually("a write is stored", || first.says("SET k v") == "+OK\r\n");
    let has_answered = |reply: &str| reply == "$1\r\nv\r\n";
    eventually("it is read", || has_answered(&second.says("GET k")));
    let drain = |drains: bool| {
        let (body, json) = (format!("{{\"draining\": {drains}}}"), [("content-type", "application/json")]);
        assert_eq!(call(&cluster.endpoint(2), "PUT", "/v1/cluster/drain", &json, body.as_bytes()).status, 200);
    };
    drain(true);
    eventually("slots leave node-2", || !is_first(&mut first) && !is_first(&mut second));
    let moved = second.says("GET k");
    let others = [1, 3].map(|number| cluster.redis_addr(number));
    assert!(others.iter().any(|other| moved.starts_with("-MOVED ") && moved.trim().ends_with(other)), "{moved}");
    // Clients that know nothing of slots are served.
    assert!(has_answered(&Connection::to(&addr).says("GET k")));
    drain(false);
    eventually("slots go to node-2", || is_first(&mut first) && is_first(&mut second));
    assert!(has_answered(&second.says("GET k")));
    // With no other in reach, the node answers although it drains.
    drain(true);
    [1, 3].into_iter().for_each(|number| cluster.signal(number, Signal::STOP));
    eventually("slots go to the only node", || is_first(&mut second) && !second.says("GET k").starts_with("-MOVED"));
    [1, 3].into_iter().for_each(|number| cluster.signal(number, Signal::CONT));
}

#[test]
fn siblings_are_shown_and_merged_with_contexts() {
    let cluster = Cluster::start();
    let (mut one, mut two) = (Connection::to(&cluster.redis_addr(1)), Connection::to(&cluster.redis_addr(2)));
    one.says("CW.PUT carts alice bread");
    two.says("CW.PUT carts alice milk");
    let both = two.says("CW.GET carts alice");
    assert!(both.contains("bread") && both.contains("milk"), "{both}");
    let context = both.lines().nth(2).unwrap().to_owned();
    let merged = one.says(&format!("CW.PUT carts alice bread,milk CONTEXT {context} W 3 ID once"));
    assert!(merged.starts_with('$'), "{merged}");
    let now = two.says("CW.GET carts alice R 3 STRONG");
    assert!(now.contains("bread,milk") && now.contains("*1"), "{now}");
    assert!(two.says(&format!("CW.GET carts bob SEEN {context}")).starts_with("-ERR"), "a context of another key");
    // A database is a bucket in which the last write wins. Others can be used with these commands only.
    one.says("CW.PUT redis greeting hello");
    assert_eq!(two.says("GET greeting"), "$5\r\nhello\r\n");
    assert!(two.says("CW.RING").contains("\"partitions\""));
}
