//! Users, their roles and tokens, over HTTP, the Redis protocol and the command line.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::grown::Grown;
use crate::harness::raw::{Reply, call};
use crate::harness::{CARTWHEEL, Cluster, PATIENCE, eventually, free_bases};

const ADMIN: &str = "correct horse";
const SHOP: &str = "battery staple";

fn cartwheel(endpoint: &str, login: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(CARTWHEEL);
    command.args(args).args(["--node", endpoint]).envs(login.iter().copied());
    command.output().unwrap()
}

fn done(endpoint: &str, login: &[(&str, &str)], args: &[&str]) -> String {
    let output = cartwheel(endpoint, login, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn login<'a>(user: &'a str, password: &'a str) -> [(&'a str, &'a str); 2] {
    [("CARTWHEEL_USER", user), ("CARTWHEEL_PASSWORD", password)]
}

fn set_user(endpoint: &str, as_admin: &[(&str, &str)], name: &str, password: &Path, roles: &[&str]) {
    let file = password.to_str().unwrap();
    let roles = roles.iter().flat_map(|role| ["--role", role]);
    let args: Vec<&str> = ["user", "set", name, "--new-password-file", file].into_iter().chain(roles).collect();
    done(endpoint, as_admin, &args);
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A request with credentials; without, if they are empty.
fn asked(endpoint: &str, method: &str, path: &str, authorization: &str, body: &str) -> Reply {
    let json = ("content-type", "application/json");
    match authorization {
        "" => call(endpoint, method, path, &[json], body.as_bytes()),
        given => call(endpoint, method, path, &[json, ("authorization", given)], body.as_bytes()),
    }
}

/// A connection to a node's Redis API.
struct Redis(BufReader<TcpStream>);

impl Redis {
    fn connect(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// The first line of the reply to an inline command.
    fn ask(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        if line.starts_with('$') && !line.starts_with("$-") {
            line.clear();
            self.0.read_line(&mut line).unwrap();
        }
        line.trim_end().to_owned()
    }
}

/// All that was recorded in the audit logs of the nodes.
fn audited(cluster: &Cluster) -> Vec<Value> {
    let files = (1..=3).flat_map(|number| fs::read_dir(cluster.node_dir(number).join("audit")).unwrap());
    let text: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether a node accepts connections.
fn is_there(endpoint: &str) -> bool {
    TcpStream::connect(endpoint.replace("http://", "")).is_ok()
}

#[test]
fn users_do_what_their_roles_say_on_all_nodes_and_apis() {
    let (mut cluster, secrets) = (Cluster::start(), tempfile::tempdir().unwrap());
    let file = |name: &str, secret: &str| {
        let path = secrets.path().join(name);
        fs::write(&path, format!("{secret}\n")).unwrap();
        path
    };
    let (admin_file, shop_file) = (file("admin", ADMIN), file("shop", SHOP));
    let (first, second) = (cluster.endpoint(1), cluster.endpoint(2));
    assert!(done(&first, &[], &["user", "list"]).contains("no users"));
    // The first user must be able to make others.
    let refused = cartwheel(&first, &[], &["user", "set", "shop", "--role", "write:carts"]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    done(&first, &[], &["put", "carts", "k", "milk"]);

    set_user(&first, &[], "admin", &admin_file, &["admin:*"]);
    let as_admin = login("admin", ADMIN);
    eventually("node 2 knows the administrator", &|| {
        asked(&second, "GET", "/v1/whoami", &basic("admin", ADMIN), "").json()["user"] == "admin"
    });
    set_user(&second, &as_admin, "shop", &shop_file, &["write:carts", "read:prices-*", "write:redis"]);

    for number in 1..=3 {
        let endpoint = cluster.endpoint(number);
        let shop = basic("shop", SHOP);
        eventually("all nodes know the users", &|| {
            asked(&endpoint, "GET", "/v1/whoami", &shop, "").json()["user"] == "shop"
        });
    }
    // Without credentials there is nothing but health and the way in.
    for number in 1..=3 {
        let endpoint = cluster.endpoint(number);
        for (method, path) in [
            ("GET", "/v1/kv/carts/k"),
            ("PUT", "/v1/kv/carts/k"),
            ("GET", "/v1/kv/carts"),
            ("GET", "/v1/cluster"),
            ("GET", "/v1/cluster/ring"),
            ("GET", "/v1/users"),
            ("GET", "/metrics"),
            ("POST", "/v1/cluster/members"),
        ] {
            let refused = asked(&endpoint, method, path, "", "{}");
            assert_eq!(refused.error(), (401, "unauthorized".to_owned()), "{method} {path} on {number}");
            assert!(refused.header("www-authenticate").starts_with("Basic"));
        }
        for path in ["/", "/healthz", "/readyz", "/openapi.json"] {
            assert_eq!(asked(&endpoint, "GET", path, "", "").status, 200, "{path}");
        }
    }
    let refused = cartwheel(&first, &[], &["get", "carts", "k"]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--user"), "{refused:?}");

    // Each role opens what it says, and nothing else.
    let shop = basic("shop", SHOP);
    for (method, path, body, status) in [
        ("GET", "/v1/kv/carts/k", "", 200),
        ("PUT", "/v1/kv/carts/k2", "x", 204),
        ("DELETE", "/v1/kv/carts/k2", "", 204),
        ("GET", "/v1/kv/prices-2026/k", "", 404),
        ("PUT", "/v1/kv/prices-2026/k", "x", 403),
        ("GET", "/v1/kv/other/k", "", 403),
        ("GET", "/v1/buckets/carts", "", 200),
        ("PUT", "/v1/buckets/carts", "{\"r\": 1}", 403),
        ("DELETE", "/v1/buckets/carts", "", 403),
        ("GET", "/v1/cluster", "", 200),
        ("POST", "/v1/cluster/members", "{\"changes\": []}", 403),
        ("GET", "/v1/users", "", 403),
        ("GET", "/v1/users/admin", "", 403),
        ("GET", "/v1/users/shop", "", 200),
        ("PUT", "/v1/users/shop", "{\"roles\": [\"admin:*\"]}", 403),
        ("DELETE", "/v1/users/shop", "", 403),
    ] {
        let answer = asked(&cluster.endpoint(3), method, path, &shop, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    let listed = asked(&second, "GET", "/v1/buckets", &shop, "").json();
    assert!(listed["buckets"].as_array().unwrap().iter().all(|bucket| bucket["bucket"] != "other"), "{listed}");
    assert_eq!(asked(&first, "GET", "/v1/kv/carts/k", &basic("shop", ADMIN), "").status, 401);

    // The same over the Redis protocol, on an open connection, until the user is gone.
    let mut redis = Redis::connect(&cluster.redis_addr(1));
    assert!(redis.ask("GET k").starts_with("-NOAUTH"));
    assert!(redis.ask("HELLO 2").starts_with("-NOAUTH"));
    assert!(redis.ask("AUTH shop wrong").starts_with("-WRONGPASS"));
    assert_eq!(redis.ask(&format!("AUTH shop \"{SHOP}\"")), "+OK");
    assert_eq!(redis.ask("ACL WHOAMI"), "shop");
    assert_eq!(redis.ask("SET k v"), "+OK");
    assert_eq!(redis.ask("GET k"), "v");
    assert_eq!(redis.ask("SELECT 1"), "+OK");
    assert!(redis.ask("GET k").starts_with("-NOPERM"), "another bucket");
    assert!(redis.ask("CW.GET other k").starts_with("-NOPERM"));
    assert_eq!(redis.ask("SELECT 0"), "+OK");
    assert!(redis.ask("FLUSHDB").starts_with("-NOPERM"));

    // A token stands for its user, also in place of a password.
    let token = done(&first, &as_admin, &["user", "token", "add", "shop", "--expires", "1h"]).trim().to_owned();
    eventually("node 2 knows the token", &|| {
        asked(&second, "GET", "/v1/whoami", &format!("Bearer {token}"), "").json()["user"] == "shop"
    });
    done(&second, &[("CARTWHEEL_TOKEN", &token)], &["put", "carts", "k3", "tea"]);
    let mut by_token = Redis::connect(&cluster.redis_addr(2));
    assert_eq!(by_token.ask(&format!("AUTH {token}")), "+OK");
    assert_eq!(by_token.ask("ACL WHOAMI"), "shop");

    // A node that was away learns of changes before it serves again, and keeps them.
    cluster.kill(3);
    done(&first, &as_admin, &["user", "set", "shop", "--role", "read:carts"]);
    assert!(redis.ask("SET k v").starts_with("-NOPERM"), "the open connection has the new roles");
    cluster.restart(3);
    let third = cluster.endpoint(3);
    eventually("node 3 has the new roles", &|| asked(&third, "PUT", "/v1/kv/carts/k", &shop, "x").status == 403);
    done(&first, &as_admin, &["user", "delete", "shop"]);
    assert!(redis.ask("GET k").starts_with("-NOAUTH"), "the user of the open connection is gone");
    eventually("node 2 refuses the token", &|| {
        asked(&second, "GET", "/v1/whoami", &format!("Bearer {token}"), "").status == 401
    });

    // The acts are on record, and no secret is anywhere.
    let acts = audited(&cluster);
    let act = |act: &str, outcome: &str| acts.iter().find(|line| line["act"] == act && line["outcome"] == outcome);
    assert_eq!(act("PUT /v1/users/shop", "done").unwrap()["user"], "admin");
    assert_eq!(act("PUT /v1/users/shop", "forbidden").unwrap()["user"], "shop");
    assert_eq!(act("PUT /v1/buckets/carts", "forbidden").unwrap()["client"], "127.0.0.1");
    assert!(act("POST /v1/users/shop/tokens", "done").is_some());
    assert!(act("POST /v1/cluster/members", "unauthorized").is_some());
    let mut shown = serde_json::to_string(&acts).unwrap();
    for path in ["/v1/users", "/v1/cluster", "/metrics"] {
        shown += &asked(&first, "GET", path, &basic("admin", ADMIN), "").text();
    }
    for number in 1..=2 {
        shown += &fs::read_to_string(format!("/proc/{}/cmdline", cluster.pid(number))).unwrap();
    }
    for secret in [ADMIN, SHOP, &token, "argon2"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[test]
fn a_cluster_with_a_first_administrator_is_never_open() {
    let mut nodes = Grown::new();
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("admin");
    fs::write(&file, ADMIN).unwrap();
    let flag = format!("--admin-password-file={}", file.display());
    let resp = format!("127.0.0.1:{}", free_bases().0);
    nodes.serve("a", &["--bootstrap", "--cluster-name", "test", "--resp-listen", &resp, &flag]);
    let endpoint = nodes.endpoint("a");
    nodes.eventually("the node answers", |_| is_there(&endpoint));
    assert_eq!(asked(&endpoint, "GET", "/v1/users", "", "").status, 401, "before there is a user");
    let admin = basic("admin", ADMIN);
    nodes.eventually("the administrator is made", |_| asked(&endpoint, "GET", "/v1/users", &admin, "").status == 200);
    // A user that lost its password gets it back from the same file, if that is asked for.
    let changed = asked(&endpoint, "PUT", "/v1/users/admin", &admin, "{\"password\": \"another one\"}");
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(asked(&endpoint, "GET", "/v1/users", &admin, "").status, 401);
    nodes.kill("a");
    nodes.serve("a", &["--resp-listen", &resp, &flag]);
    nodes.eventually("the node answers", |_| is_there(&endpoint));
    nodes.eventually("the node is back", |_| {
        asked(&endpoint, "GET", "/v1/users", &basic("admin", "another one"), "").status == 200
    });
    assert_eq!(asked(&endpoint, "GET", "/v1/users", &admin, "").status, 401, "the file changes nothing by itself");
    nodes.kill("a");
    nodes.serve("a", &["--resp-listen", &resp, &flag, "--reset-admin"]);
    nodes.eventually("the node answers", |_| is_there(&endpoint));
    nodes.eventually("the password is reset", |_| asked(&endpoint, "GET", "/v1/users", &admin, "").status == 200);
}
