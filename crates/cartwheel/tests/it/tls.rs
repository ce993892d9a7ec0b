//! TLS with clients and between nodes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::grown::Grown;
use crate::harness::raw::{get, put};
use crate::harness::{CARTWHEEL, PATIENCE, free_bases};

fn cartwheel(args: &[&str]) -> Output {
    Command::new(CARTWHEEL).args(args).output().unwrap()
}

/// Makes certificates with `cartwheel cert`.
fn cert(dir: &Path, args: &[&str]) {
    let made = Command::new(CARTWHEEL).arg("cert").args(args).arg("--dir").arg(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The flags of a node whose certificate names `name`.
fn flags(dir: &Path, name: &str, clients: &str, peers: &str) -> Vec<String> {
    let file = |file: &str| dir.join(file).display().to_string();
    let files = [("cert", file(&format!("{name}.crt"))), ("key", file(&format!("{name}.key"))), ("ca", file("ca.crt"))];
    let modes = [("clients", clients.to_owned()), ("peers", peers.to_owned())];
    files.into_iter().chain(modes).map(|(flag, value)| format!("--tls-{flag}={value}")).collect()
}

fn serve(nodes: &mut Grown, name: &str, flags: &[String], more: &[&str]) {
    let args: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    nodes.serve(name, &args);
}

/// Connects over TLS, with the authority in `dir`.
fn connect(dir: &Path, addr: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(addr).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp);
    // The node may have refused by then.
    let _ = stream.conn.complete_io(&mut stream.sock);
    stream
}

/// What is answered to `sent` on a connection without TLS.
fn answer(addr: &str, sent: &[u8]) -> String {
    let mut tcp = TcpStream::connect(addr).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(sent).unwrap();
    let mut answer = Vec::new();
    // The node may reset the connection after its answer.
    let _ = tcp.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_cluster_changes_over_to_tls_node_by_node() {
    let names = ["a", "b", "c"];
    let (mut nodes, certs) = (Grown::of(&names), tempfile::tempdir().unwrap());
    cert(certs.path(), &["ca"]);
    names.iter().for_each(|name| cert(certs.path(), &["node", name]));
    let mut written = 0;
    for mode in ["accept", "prefer", "require"] {
        for name in names {
            nodes.kill(name);
            serve(&mut nodes, name, &flags(certs.path(), name, "accept", mode), &[]);
            nodes.wait_for(name);
            for through in names {
                let stored = put(&nodes.endpoint(through), &format!("/v1/kv/carts/{written}?w=3"), "milk");
                assert_eq!(stored.status, 204, "{mode} on {name}, through {through}: {}", stored.text());
                written += 1;
            }
        }
    }
    for number in 0..written {
        let read = get(&nodes.endpoint("b"), &format!("/v1/kv/carts/{number}?r=3"));
        assert_eq!((read.status, read.text()), (200, "milk".to_owned()));
    }
    // A node without TLS, and one of another authority, learn nothing.
    let seed = nodes.peer_addr("a");
    let strangers = tempfile::tempdir().unwrap();
    cert(strangers.path(), &["ca"]);
    cert(strangers.path(), &["node", "stranger"]);
    nodes.serve("plain", &["--seed", &seed, "--join"]);
    nodes.eventually("the node without TLS is refused", |nodes| nodes.log("a").contains("requires of peers"));
    nodes.kill("plain");
    let flags_of = |name| flags(strangers.path(), name, "accept", "require");
    serve(&mut nodes, "stranger", &flags_of("stranger"), &["--seed", &seed, "--join"]);
    nodes.eventually("the stranger is refused", |nodes| nodes.log("stranger").contains("TLS handshake failed"));
    nodes.kill("stranger");
    for name in ["plain", "stranger"] {
        assert!(!nodes.dir(name).join("node.json").exists(), "{name} was told nothing");
    }
    let hello = b"\0\0\0\x0dcartwheel\0\0\0\x07";
    assert_eq!(answer(&seed, hello), "");
    // Nor does a client that trusts the right authority, and shows no certificate.
    let (mut without, mut told) = (connect(certs.path(), &seed), Vec::new());
    let _ = without.write_all(hello);
    assert!(without.read_to_end(&mut told).is_err() && told.is_empty());
    // A certificate of the authority is not enough: it must name the node.
    nodes.kill("c");
    serve(&mut nodes, "c", &flags(certs.path(), "b", "accept", "require"), &[]);
    nodes.eventually("another node's certificate is refused", |nodes| {
        nodes.log("c").contains("its certificate does not name c")
    });
}

#[test]
fn clients_use_tls_where_it_is_required() {
    let (mut nodes, certs) = (Grown::new(), tempfile::tempdir().unwrap());
    let dir = certs.path();
    cert(dir, &["ca"]);
    cert(dir, &["node", "a"]);
    let resp = format!("127.0.0.1:{}", free_bases().0);
    let founds = ["--bootstrap", "--cluster-name", "test", "--resp-listen", &resp];
    serve(&mut nodes, "a", &flags(dir, "a", "require", "off"), &founds);
    let plain = nodes.endpoint("a");
    let (addr, endpoint) = (plain.replace("http://", ""), plain.replace("http://", "https://"));
    let ca = dir.join("ca.crt").display().to_string();
    let run = |args: &[&str], trust: &[&str]| {
        let output = cartwheel(&[args, &["--node", &endpoint], trust].concat());
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for bucket in ["b", "redis"] {
        let set = ["bucket", "set", bucket, "--n", "1", "--r", "1", "--w", "1"];
        nodes.eventually("the node takes settings", |_| run(&set, &["--tls-ca", &ca]).0);
    }
    nodes.eventually("the node takes writes", |_| run(&["put", "b", "k", "milk"], &["--tls-ca", &ca]).0);
    assert_eq!(run(&["get", "b", "k"], &["--tls-ca", &ca]).1, "milk");
    let (is_done, told) = run(&["get", "b", "k", "--timeout", "1s"], &[]);
    assert!(!is_done && told.contains("--tls-ca"), "{told}");
    let strangers = tempfile::tempdir().unwrap();
    cert(strangers.path(), &["ca"]);
    let other = strangers.path().join("ca.crt").display().to_string();
    let (is_done, told) = run(&["get", "b", "k", "--timeout", "1s"], &["--tls-ca", &other]);
    assert!(!is_done && told.contains("invalid peer certificate"), "{told}");
    let (is_done, told) = run(&["cluster", "status"], &["--tls-ca", &ca]);
    assert!(is_done && told.contains("alive"), "{told}");
    assert!(run(&["verify"], &["--tls-ca", &ca]).1.contains("EQUAL"));
    // A client without TLS is told so.
    let told = answer(&addr, b"GET /v1/kv/b/k HTTP/1.1\r\nhost: x\r\n\r\n");
    let body = told.split_once("\r\n\r\n").unwrap().1;
    assert!(told.starts_with("HTTP/1.1 400 ") && body.contains("over TLS only"), "{told}");
    assert!(told.contains(&format!("content-length: {}\r\n", body.len())), "{told}");
    assert!(answer(&resp, b"PING\r\n").starts_with("-ERR this node talks to clients over TLS only"));
    // Large values, and the Redis protocol.
    let value = "x".repeat(700_000);
    let file = dir.join("value");
    std::fs::write(&file, &value).unwrap();
    let args = ["put", "b", "large", "-", "--node", &endpoint, "--tls-ca", &ca];
    let stored = Command::new(CARTWHEEL).args(args).stdin(File::open(&file).unwrap()).output().unwrap();
    assert!(stored.status.success(), "{}", String::from_utf8_lossy(&stored.stderr));
    assert!(run(&["get", "b", "large"], &["--tls-ca", &ca]).1 == value);
    let mut redis = connect(dir, &resp);
    redis.write_all(format!("SET k {}\r\nGET k\r\n", &value[..30_000]).as_bytes()).unwrap();
    let mut reply = vec![0; b"+OK\r\n$30000\r\n\r\n".len() + 30_000];
    redis.read_exact(&mut reply).unwrap();
    assert!(reply.starts_with(b"+OK\r\n$30000\r\nxxx") && reply.ends_with(b"x\r\n"));
    for (protocol, bucket) in [("http", "b"), ("client", "b"), ("resp", "redis")] {
        let load = ["--keys", "10", "--load", "--connections", "2", "--seconds", "5", "--ops", "100", "--warmup", "0"];
        let args = [&["bench", "--protocol", protocol, "--bucket", bucket, "--r", "1", "--w", "1"][..], &load].concat();
        let args = if protocol == "resp" { [&args[..5], &load].concat() } else { args };
        let (is_done, told) = run(&args, &["--tls-ca", &ca]);
        assert!(is_done && told.contains("ops/s") && !told.contains("errors"), "{protocol}: {told}");
    }
    // Another certificate is used for new connections; those that are open go on.
    let shown = |addr: &str| connect(dir, addr).conn.peer_certificates().unwrap()[0].to_vec();
    let before = shown(&addr);
    cert(dir, &["node", "a"]);
    nodes.eventually("the new certificate is shown", |_| shown(&addr) != before);
    redis.write_all(b"STRLEN k\r\n").unwrap();
    let mut reply = [0; 8];
    redis.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b":30000\r\n");
    // Files that cannot be used change nothing.
    std::fs::write(dir.join("a.crt"), "no certificate").unwrap();
    nodes.eventually("the log says so", |nodes| nodes.log("a").contains("cannot use the changed TLS files"));
    assert_eq!(run(&["get", "b", "k"], &["--tls-ca", &ca]).1, "milk");
}

#[test]
fn clients_show_certificates_where_those_are_required() {
    let (mut nodes, certs) = (Grown::new(), tempfile::tempdir().unwrap());
    let dir = certs.path();
    cert(dir, &["ca"]);
    cert(dir, &["node", "a"]);
    cert(dir, &["client", "alice"]);
    serve(&mut nodes, "a", &flags(dir, "a", "certificate", "off"), &["--bootstrap", "--cluster-name", "test"]);
    let endpoint = nodes.endpoint("a").replace("http://", "https://");
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, own, key) = (file("ca.crt"), file("alice.crt"), file("alice.key"));
    let status = |more: &[&str]| {
        cartwheel(&[&["cluster", "status", "--node", &endpoint, "--tls-ca", &ca], more].concat()).status.success()
    };
    nodes.eventually("a client with a certificate is served", |_| status(&["--tls-cert", &own, "--tls-key", &key]));
    assert!(!status(&[]));
}

#[test]
fn settings_of_tls_that_do_not_fit_are_refused() {
    let certs = tempfile::tempdir().unwrap();
    let dir = certs.path();
    cert(dir, &["ca"]);
    cert(dir, &["node", "a"]);
    cert(dir, &["node", "b"]);
    let file = |name: &str| dir.join(name).display().to_string();
    for (flags, expected) in [
        (vec!["--tls-cert", "a.crt"], "needs both"),
        (vec!["--tls-ca", "ca.crt"], "tls_ca needs a certificate"),
        (vec!["--tls-peers", "require"], "tls_peers needs a certificate"),
        (vec!["--tls-cert", "a.crt", "--tls-key", "a.key", "--tls-peers", "prefer"], "give tls_ca"),
        (vec!["--tls-cert", "a.crt", "--tls-key", "a.key", "--tls-clients", "certificate"], "give tls_ca"),
        (vec!["--tls-cert", "a.crt", "--tls-key", "b.key"], "cannot use the certificate"),
        (vec!["--tls-cert", "a.key", "--tls-key", "a.key"], "holds no certificate"),
        (vec!["--tls-cert", "a.crt", "--tls-key", "a.crt"], "holds no private key"),
        (vec!["--tls-cert", "absent", "--tls-key", "a.key"], "cannot read"),
    ] {
        let flags: Vec<String> = flags
            .into_iter()
            .map(|flag| if flag.contains('.') || flag == "absent" { file(flag) } else { flag.to_owned() })
            .collect();
        let data = dir.join("data").display().to_string();
        let args = [vec!["serve", "--dir", &data], flags.iter().map(String::as_str).collect()].concat();
        let refused = cartwheel(&args);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains(expected), "{args:?}: {told}");
    }
    assert!(!String::from_utf8_lossy(&cartwheel(&["cert", "node", "ca", "--dir", "x"]).stderr).is_empty());
}
