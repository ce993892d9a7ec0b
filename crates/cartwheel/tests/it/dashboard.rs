//! The dashboard in a browser: in light, dark and on a phone, it finds keys, merges siblings, and outlives its node.
//!
//! It needs Node.js and Chromium, which `.ci/chromium` installs, and is skipped without them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::Cluster;
use crate::harness::raw::{call, get};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cartwheel-server/dashboard")
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn a_browser_tells_its_story() {
    if !is_there("node") || !is_there("chromium") {
        println!("skipped: node or chromium is not installed");
        return;
    }
    let cluster = Cluster::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/dashboard.mjs");
    let mut story = Command::new("node")
        .arg(script)
        .arg("chromium")
        .args(cluster.endpoints())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(story.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.next();
    if said.as_deref() == Some("kill") {
        cluster.kill(1);
        story.stdin.take().unwrap().write_all(b"killed\n").unwrap();
    }
    let end = lines.next();
    let status = story.wait().unwrap();
    assert!(status.success() && end.as_deref() == Some("done"), "{status}, {said:?}, {end:?}");
}

#[test]
fn browsers_get_the_page_and_programs_the_list_of_calls() {
    let cluster = Cluster::start();
    let node = &cluster.endpoint(1);
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = call(node, "GET", "/", &browser, b"");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    for other in cluster.endpoints() {
        assert!(policy.contains(other.trim_start_matches("http://")), "the page may go on to {other}: {policy}");
    }
    for programs in [&[][..], &[("accept", "*/*")], &[("accept", "text/plain")], &[("accept", "text/html;q=0")]] {
        let text = call(node, "GET", "/", programs, b"");
        assert_eq!(text.header("content-type"), "text/plain; charset=utf-8", "{programs:?}");
        assert_eq!(text.header("vary"), "Accept");
    }
    for asset in ["/assets/dashboard.js", "/assets/dashboard.css", "/assets/icon.svg"] {
        let whole = get(node, asset);
        let etag = whole.header("etag").to_owned();
        assert_eq!((whole.status, whole.header("cache-control")), (200, "no-cache"));
        assert_eq!(whole.header("access-control-allow-origin"), "", "no other page may read it");
        let kept = root().join("built").join(asset.trim_start_matches("/assets/"));
        assert!(whole.body == std::fs::read(kept).unwrap(), "the binary has what the repository has");
        let known = call(node, "GET", asset, &[("if-none-match", &etag)], b"");
        assert_eq!((known.status, known.body.len()), (304, 0));
        let head = call(node, "HEAD", asset, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(call(node, "PUT", asset, &[], b"").status, 405);
    }
    assert_eq!(get(node, "/assets/other.js").status, 404);
}

#[test]
fn replicas_of_a_key_and_sizes_of_nodes_are_shown() {
    let cluster = Cluster::start();
    let node = &cluster.endpoint(1);
    for (through, value) in [(1, "milk"), (2, "bread")] {
        assert_eq!(
            call(&cluster.endpoint(through), "PUT", "/v1/kv/carts/a%2Fb?w=3", &[], value.as_bytes()).status,
            204
        );
    }
    let shown = get(node, "/v1/cluster/replicas/carts/a/b").json();
    let read = call(node, "GET", "/v1/kv/carts/a/b?r=3", &[("accept", "application/json")], b"").json();
    let mut versions: Vec<_> =
        read["siblings"].as_array().unwrap().iter().map(|held| held["version"].clone()).collect();
    let mut siblings = shown["siblings"].as_array().unwrap().clone();
    versions.sort_by_key(|version| version.to_string());
    siblings.sort_by_key(|version| version.to_string());
    assert_eq!(siblings, versions);
    let replicas = shown["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 3);
    for replica in replicas {
        assert_eq!((&replica["role"], &replica["state"]), (&"home".into(), &"holds".into()), "{replica}");
        assert_eq!(replica["holds"].as_array().map(Vec::len), Some(2), "{replica}");
        assert_eq!(replica["digest"], replicas[0]["digest"]);
    }
    let never = get(node, "/v1/cluster/replicas/carts/never").json();
    assert!(never["replicas"].as_array().unwrap().iter().all(|replica| replica["state"] == "nothing"), "{never}");
    assert_eq!(get(node, "/v1/cluster/replicas/carts/a?r=1").status, 400);
    cluster.kill(3);
    let lost = get(node, "/v1/cluster/replicas/carts/a/b?timeout_ms=2000").json();
    let states: Vec<_> = lost["replicas"].as_array().unwrap().iter().map(|replica| &replica["state"]).collect();
    assert_eq!(states.iter().filter(|state| **state == "silent").count(), 1, "{lost}");
    let sizes = get(node, "/v1/cluster/sizes").json();
    let sizes = sizes["nodes"].as_array().unwrap();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| size["replicas"] == 256), "{sizes:?}");
    assert!(sizes.iter().any(|size| size["keys"] == 1), "{sizes:?}");
}

#[test]
fn the_sources_build_to_the_built_files() {
    if !root().join("node_modules/esbuild").is_dir() || !is_there("node") {
        println!("skipped: esbuild is not installed; `just dashboard` installs it");
        return;
    }
    let to = tempfile::tempdir().unwrap();
    let built = Command::new("node").arg(root().join("build.mjs")).arg("--to").arg(to.path()).status().unwrap();
    assert!(built.success());
    for file in ["index.html", "dashboard.js", "dashboard.css", "icon.svg", "sources.md5"] {
        let (built, kept) = (std::fs::read(to.path().join(file)), std::fs::read(root().join("built").join(file)));
        assert!(built.unwrap() == kept.unwrap(), "built/{file} is not what the sources build to: run `just dashboard`");
    }
}
