//! Commands of one connection to a node that holds each key once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cartwheel_core::message::client::{
    Acks, Got, Inspected, Operation, Outcome, Put, PutDone, Refusal, Reply, Request, Shortfall,
};
use cartwheel_core::node::{Effects, Input};
use cartwheel_core::value::dot::{Actor, Dot, Incarnation, NodeId, Since};
use cartwheel_core::value::hlc::{Hlc, HlcClock};
use cartwheel_core::value::key::Key;
use cartwheel_core::value::state::{Epoch, Sibling};
use cartwheel_core::value::time::Now;
use cartwheel_core::value::write_id::WriteId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::api::RespApi;
use super::connection::RespConnection;
use super::session::Session;
use crate::backend::tests::backend_of;
use crate::os::clock;
use crate::shard::Machine;
use crate::tcp::connections::{ConnectionLimit, Serves};

/// A replica without peers, where the last write wins. Keys called `down` are out of reach; `contended` changes before every rewrite.
#[derive(Default)]
struct Alone {
    held: BTreeMap<Key, Sibling>,
    clock: HlcClock,
    dots: u64,
}

impl Alone {
    fn carry_out(&mut self, operation: Operation) -> Outcome {
        let acks = Acks { home: 2, standin: 0, zones: 1 };
        if operation.key().name() == "down" {
            let why = "too few replicas answered in time".to_owned();
            return Err(Refusal::Unavailable(Shortfall { answered: 0, needed: 2, why }));
        }
        match operation {
            Operation::Get(get) => {
                let siblings: Vec<_> = self.held.get(&get.key).cloned().into_iter().collect();
                let context = siblings.first().map(|_| Bytes::from_static(b"context"));
                Ok(Reply::Got(Got { siblings, context, acks }))
            }
            Operation::Put(put) => {
                self.put(put)?;
                Ok(Reply::Put(PutDone { context: Some(Bytes::from_static(b"context")), acks, body: None }))
            }
            Operation::Inspect(_) => Ok(Reply::Inspected(Inspected { replicas: Vec::new() })),
            Operation::Restore(_) => panic!("no command restores"),
        }
    }

    fn put(&mut self, put: Put) -> Result<(), Refusal> {
        let tick = self.clock.tick(clock::wall());
        if put.rewrites.is_some() && put.key.name() == "contended" {
            self.held.get_mut(&put.key).unwrap().hlc = tick;
        }
        let held = self.held.get(&put.key).map(|held| held.hlc);
        let hlc = put.rewrites.map_or(tick, Hlc::next);
        if let Some(held) = held.filter(|&held| put.rewrites.is_some() && held >= hlc) {
            return Err(Refusal::StampTooLow(held));
        }
        self.dots += 1;
        let actor = Actor { node: NodeId::new(1), incarnation: Incarnation(1), since: Since(1) };
        let sibling = Sibling {
            dot: Dot { actor, counter: self.dots },
            content: put.content,
            hlc,
            epoch: Epoch(1),
            write_id: WriteId::from_bytes([0; 16]),
            expires: put.expires,
        };
        self.held.insert(put.key, sibling);
        Ok(())
    }
}

impl Machine for Alone {
    fn step(&mut self, _now: Now, input: Input) -> Effects {
        let Input::Client(id, Request { operation, .. }) = input else { return Effects::default() };
        Effects { replies: vec![(id, self.carry_out(operation))], ..Effects::default() }
    }
}

/// A connection to [`Alone`].
struct Talk {
    client: DuplexStream,
    api: Arc<RespApi>,
}

impl Talk {
    fn begin() -> Self {
        let (backend, _) = backend_of(Alone::default());
        Self::to(RespApi::new(Arc::new(backend), 100))
    }

    fn to(api: Arc<RespApi>) -> Self {
        let (client, server) = duplex(1 << 20);
        let registered = api.clients().register(None, None);
        let guard = ConnectionLimit::new(10).register(None, Serves::All);
        let session = Session::new(api.clone(), registered.client.clone());
        tokio::spawn(async move {
            let _registered = registered;
            let _ = RespConnection::new(server, session, guard).serve().await;
        });
        Self { client, api }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    /// Expects these bytes, and no others before them.
    async fn expect(&mut self, expected: &str) {
        let mut got = vec![0; expected.len()];
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), self.client.read_exact(&mut got)).await;
        let shown = String::from_utf8_lossy(&got).into_owned();
        assert!(matches!(read, Ok(Ok(_))) && shown == expected, "{shown:?} instead of {expected:?}");
    }

    /// Sends inline commands at once, and expects the replies.
    async fn says(&mut self, commands: &str, expected: &str) {
        self.send(format!("{}\r\n", commands.replace('|', "\r\n")).as_bytes()).await;
        self.expect(&expected.replace('|', "\r\n")).await;
    }

    async fn ends(&mut self) {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[tokio::test]
async fn commands_of_a_pipeline_are_answered_in_order_and_see_those_before_them() {
    let mut talk = Talk::begin();
    talk.says("SET a 1|GET a|SET a 2|GET a|GET b|DEL a b|GET a", "+OK|$1|1|+OK|$1|2|$-1|:1|$-1|").await;
    let many: Vec<u32> = (0..3_000).collect();
    let sets: Vec<String> = many.iter().map(|at| format!("SET k{at} {at}|PING")).collect();
    talk.says(&sets.join("|"), &"+OK|+PONG|".repeat(3_000)).await;
    let gets: Vec<String> = many.iter().map(|at| format!("GET k{at}")).collect();
    let values: Vec<String> = many.iter().map(|at| format!("${}|{at}|", at.to_string().len())).collect();
    talk.says(&gets.join("|"), &values.concat()).await;
    talk.says("MSET x 1 y 2 x 3|MGET x y z|EXISTS x x z|STRLEN x", "+OK|*3|$1|3|$1|2|$-1|:2|:1|").await;
}

#[tokio::test]
async fn values_of_any_bytes_and_lengths_come_back() {
    let mut talk = Talk::begin();
    for length in [0, 1, 16 << 10, (64 << 10) + 1, 700_000, 1 << 20] {
        let value: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
        let set =
            [format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\n").as_bytes(), &value, b"\r\nGET k\r\n"].concat();
        talk.send(&set).await;
        talk.expect(&format!("+OK\r\n${length}\r\n")).await;
        let mut got = vec![0; length + 2];
        talk.client.read_exact(&mut got).await.unwrap();
        assert!(got[..length] == value);
    }
    let metrics = talk.api.backend().metrics.resp.clone();
    talk.says("PING", "+PONG|").await;
    assert_eq!((metrics.request_bytes.get(), metrics.reply_bytes.get()), (0, 0), "no memory is held");
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let mut talk = Talk::begin();
    let length = (16 << 20) + 1;
    talk.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\n").as_bytes()).await;
    for _ in 0..=16 {
        talk.send(&vec![b'v'; 1 << 20][..(1 << 20).min(length)]).await;
    }
    // The last piece was longer than the value; its rest is a strange inline command.
    let why = format!("-ERR an argument has {length} bytes, and 16777216 is the most: send less\r\n");
    talk.expect(&why).await;
}

#[tokio::test]
async fn a_client_chooses_its_version_its_database_and_its_replies() {
    let mut talk = Talk::begin();
    talk.says("GET a|HELLO 4", "$-1|-NOPROTO unsupported protocol version|").await;
    talk.says("HELLO 3 SETNAME me", "%7|$6|server|$5|redis|$7|version|$6|7.0.15|$5|proto|:3|$2|id|:1|$4|mode|$10|standalone|$4|role|$6|master|$7|modules|*0|").await;
    talk.says("GET a|CLIENT GETNAME|COMMAND INFO nothing", "_|$2|me|*1|_|").await;
    talk.says(
        "SET a 0|SELECT 1|GET a|SET a 1|SELECT 0|GET a|SELECT 16|SELECT x",
        "+OK|+OK|_|+OK|+OK|$1|0|-ERR DB index is out of range|-ERR value is not an integer or out of range|",
    )
    .await;
    talk.says("CLIENT REPLY SKIP|GET a|PING|CLIENT REPLY OFF|PING|SET a 2|CLIENT REPLY ON|GET a", "+PONG|+OK|$1|2|")
        .await;
    talk.says("RESET|GET b|CLIENT GETNAME", "+RESET|$-1|$-1|").await;
    talk.says("QUIT|PING", "+OK|").await;
    talk.ends().await;
}

#[tokio::test]
async fn values_expire_and_rewrites_keep_what_they_do_not_change() {
    let mut talk = Talk::begin();
    talk.says("SET a 1 EX 100|TTL a|PERSIST a|TTL a|PERSIST a|TTL none", "+OK|:100|:1|:-1|:0|:-2|").await;
    talk.says("EXPIRE a 100|SET a 2 KEEPTTL|TTL a|GET a|SET a 3|TTL a", ":1|+OK|:100|$1|2|+OK|:-1|").await;
    talk.says("EXPIREAT a 4000000000|EXPIRETIME a|PEXPIRETIME a", ":1|:4000000000|:4000000000000|").await;
    talk.says(
        "EXPIRE a 100 GT|EXPIRE a 100 NX|EXPIRE a 100 LT|TTL a|EXPIRE a -1|GET a|EXPIRE a 1",
        ":0|:0|:1|:100|:1|$-1|:0|",
    )
    .await;
    talk.says(
        "SET b 1 PX 1|SET c 1 GET|GETEX c EX 50|TTL c|GETEX c PERSIST|TTL c|GETDEL c|GETDEL c",
        "+OK|$-1|$1|1|:50|$1|1|:-1|$1|1|$-1|",
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    talk.says("GET b|EXISTS b|TYPE b|SET d x|TYPE d", "$-1|:0|+none|+OK|+string|").await;
    for refused in ["EX 0", "PX -1", "EX 9223372036854775807"] {
        talk.says(&format!("SET a 1 {refused}"), "-ERR invalid expire time in 'set' command|").await;
    }
}

#[tokio::test]
async fn errors_are_redis_words_and_say_what_to_do() {
    let mut talk = Talk::begin();
    for (command, error) in [
        ("FOO a 'b c'", "ERR unknown command 'FOO', with args beginning with: 'a' 'b c' "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("CLIENT NOTHING", "ERR unknown subcommand 'NOTHING'. Try CLIENT HELP."),
        ("CLIENT SETNAME", "ERR wrong number of arguments for 'client|setname' command"),
        ("SET a 1 EX", "ERR syntax error"),
        ("SET a 1 EX 1 PX 1", "ERR syntax error"),
        ("SET a 1 EX x", "ERR value is not an integer or out of range"),
        ("SET '' 1", "ERR the key is 0 bytes long: use 1 to 4096"),
        ("EXPIRE a 1 XX NX", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE a 1 YY", "ERR Unsupported option YY"),
    ] {
        talk.send(format!("{command}\r\n").as_bytes()).await;
        talk.expect(&format!("-{error}\r\n")).await;
    }
    for (command, start) in [
        ("INCR a", "-ERR INCR is not supported yet"),
        ("SET a 1 NX", "-ERR SET with NX is not supported yet"),
        ("MULTI", "-ERR MULTI is not supported"),
        ("SUBSCRIBE a", "-ERR SUBSCRIBE is not supported"),
        ("GET down", "-CLUSTERDOWN the bucket needs"),
        ("SET down 1", "-NOREPLICAS the bucket needs"),
        ("SET contended 1 |EXPIRE contended 1", "+OK\r\n-TRYAGAIN others write this key"),
    ] {
        talk.send(format!("{}\r\n", command.replace('|', "\r\n")).as_bytes()).await;
        talk.expect(start).await;
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n") {
            rest.push(talk.client.read_u8().await.unwrap());
        }
    }
    talk.says("PING", "+PONG|").await;
    talk.send(b"*1\r\nPING\r\n").await;
    talk.expect("-ERR Protocol error: expected '$', got 'P'\r\n").await;
    talk.ends().await;
}

#[tokio::test]
async fn a_browser_is_cut_off() {
    let mut talk = Talk::begin();
    talk.send(b"POST /x HTTP/1.1\r\nHost: a\r\n\r\nSET a 1\r\n").await;
    talk.expect("-ERR unknown command 'POST', with args beginning with: '/x' 'HTTP/1.1' \r\n").await;
    talk.ends().await;
}

#[tokio::test]
async fn native_commands_show_contexts_and_siblings() {
    let mut talk = Talk::begin();
    talk.says(
        "CW.GET carts a|CW.PUT carts a 1 TTL 100|CW.GET carts a",
        "*2|$-1|*0|$10|Y29udGV4dA|*2|$10|Y29udGV4dA|*1|$1|1|",
    )
    .await;
    talk.says(
        "CW.DEL carts a CONTEXT Y29udGV4dA|CW.GET carts a R 1 STRONG TIMEOUT 100",
        "$10|Y29udGV4dA|*2|$10|Y29udGV4dA|*0|",
    )
    .await;
    talk.says("CW.GET carts a W 1|CW.GET carts a R 0|CW.PUT carts a 1 CONTEXT !", "-ERR syntax error|-ERR R is not a number from 1 to 16|-ERR the context is not one that a reply showed: send it as it came|").await;
    talk.send(b"CW.RING\r\n").await;
    talk.expect("$").await;
}

#[tokio::test]
async fn clients_see_each_other() {
    let mut talk = Talk::begin();
    let mut other = Talk::to(talk.api.clone());
    other.says("CLIENT ID|CLIENT SETINFO lib-name jedis", ":2|+OK|").await;
    talk.says("CLIENT KILL ID 2|CLIENT KILL ID 2 SKIPME NO", ":1|:1|").await;
    assert_eq!(talk.api.clients().count(), 2, "only the server closes the connection");
    assert!(talk.api.clients().all()[1].line("NULL").contains("lib-name=jedis"));
}
