//! Monitoring: the book's table of metrics is what a node serves, no label has values that a client can choose, and dashboard, alerts and runbook
//! agree with both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::Cluster;
use crate::harness::raw::{call, get, put, set_bucket};

const BOOK: &str = "docs/src/operating/metrics.md";
const RUNBOOK: &str = "docs/src/operating/runbook.md";
const ALERTS: &str = "packaging/prometheus/alerts.yml";
const DASHBOARD: &str = "packaging/grafana/cartwheel.json";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

/// A metric of the book, or of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The rows of the tables whose first cell is code, each as its cells without backquotes.
fn rows(page: &str) -> impl Iterator<Item = Vec<String>> + '_ {
    let row = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    page.lines().filter(|line| line.starts_with("| `")).map(row)
}

/// The metrics of the book by their names, and its labels.
fn book() -> (BTreeMap<String, Metric>, BTreeSet<String>) {
    let page = read(BOOK);
    let (mut metrics, mut labels) = (BTreeMap::new(), BTreeSet::new());
    for row in rows(&page) {
        let [name, kind, unit, with, meaning] = &row[..] else {
            assert!(labels.insert(row[0].clone()), "{} comes twice", row[0]);
            continue;
        };
        assert!(meaning.len() > 8, "{name} has no meaning");
        let is_named = |suffix: &str| name.trim_end_matches("_total").trim_end_matches("_max").ends_with(suffix);
        assert_eq!(unit == "seconds", is_named("_seconds"), "{name} is in {unit}");
        assert_eq!(unit == "bytes", is_named("_bytes"), "{name} is in {unit}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let with = with.split(", ").filter(|&label| label != "-").map(str::to_owned).collect();
        let metric = Metric { kind: kind.clone(), labels: with };
        assert_eq!(metrics.insert(name.clone(), metric), None, "{name} comes twice");
    }
    (metrics, labels)
}

/// The series in a text of metrics: each with its labels and their values.
fn series(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let label = |label: &str| {
        let (name, value) = label.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    };
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0);
    lines
        .map(|sample| match sample.split_once('{') {
            None => (sample.to_owned(), BTreeMap::new()),
            Some((_, labels)) => (sample.to_owned(), labels.trim_end_matches('}').split(',').map(label).collect()),
        })
        .collect()
}

/// The metrics that a node serves, as the book would have them.
fn served(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        metrics.insert(format!("{name}{suffix}"), Metric { kind: kind.to_owned(), labels: BTreeSet::new() });
    }
    for (sample, labels) in series(text) {
        let name = sample.split('{').next().unwrap();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let name = of_histogram.filter(|name| metrics.contains_key(*name)).unwrap_or(name);
        let metric = metrics.get_mut(name).unwrap_or_else(|| panic!("{sample} has no type"));
        metric.labels.extend(labels.into_keys().filter(|label| label != "le"));
    }
    metrics
}

/// Requests of all kinds that name this bucket and key.
fn exercise(node: &str, name: &str) {
    let path = format!("/v1/kv/{name}/{name}");
    assert_eq!(put(node, &path, name).status, 204);
    assert_eq!(get(node, &path).status, 200);
    assert_eq!(call(node, "DELETE", &path, &[], b"").status, 204);
    assert_eq!(get(node, &path).status, 404);
    assert_eq!(get(node, &format!("{path}?{name}={name}")).status, 400);
    assert_eq!(call(node, &name.to_uppercase(), &path, &[], b"").status, 405);
    assert_eq!(get(node, &format!("/v1/{name}")).status, 404);
    assert_eq!(set_bucket(node, name, r#"{"r": 1}"#).status, 200);
    assert_eq!(call(node, "PUT", &path, &[("content-type", name)], b"").status, 204);
}

#[test]
fn the_book_has_exactly_the_metrics_of_a_node_and_no_client_makes_new_series() {
    let cluster = Cluster::start();
    let node = cluster.endpoint(1);
    // A metric with labels is shown only once it has counted something.
    exercise(&node, "first");
    let before = get(&node, "/metrics").text();
    let (documented, labels) = book();
    let served = served(&before);
    let names = |metrics: &BTreeMap<String, Metric>| metrics.keys().cloned().collect::<BTreeSet<_>>();
    let (in_book, in_node) = (names(&documented), names(&served));
    assert!(in_book == in_node, "only in the book or only served: {:?}", in_book.symmetric_difference(&in_node));
    for (name, metric) in &documented {
        assert_eq!(metric, &served[name], "{name}");
    }
    let used: BTreeSet<String> = series(&before).into_values().flat_map(BTreeMap::into_keys).collect();
    assert_eq!(used, labels, "the book's table of labels");

    for name in ["second", "third-name", "fourth_name"] {
        exercise(&node, name);
    }
    let after = get(&node, "/metrics").text();
    let (before, after) = (series(&before), series(&after));
    let new: Vec<&String> = after.keys().filter(|sample| !before.contains_key(*sample)).collect();
    assert!(new.is_empty(), "series that clients have made: {new:?}");
    let chosen = |value: &&String| ["first", "second", "third", "fourth"].iter().any(|name| value.contains(name));
    assert_eq!(after.values().flat_map(BTreeMap::values).find(chosen), None);
}

/// The names of metrics in an expression, without the suffixes of a histogram's series.
fn named(expression: &str, documented: &BTreeMap<String, Metric>) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| word.starts_with("cartwheel_") || word.starts_with("process_");
    let family = |word: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        let is_histogram = |name: &&str| documented.get(*name).is_some_and(|metric| metric.kind == "histogram");
        of_histogram.filter(is_histogram).unwrap_or(word).to_owned()
    };
    words.filter(is_metric).map(family).collect()
}

/// The value of `key` in lines of YAML, without quotes.
fn value_of<'a>(lines: &[&'a str], key: &str) -> Option<&'a str> {
    let prefix = format!("{key}: ");
    lines
        .iter()
        .find_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(&prefix))
        .map(|value| value.trim_matches('\''))
}

#[test]
fn each_alert_is_about_metrics_that_exist_and_has_its_section_in_the_runbook() {
    let (documented, _) = book();
    let (alerts, runbook) = (read(ALERTS), read(RUNBOOK));
    let mut sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let rules: Vec<Vec<&str>> = alerts.split("\n      - ").skip(1).map(|rule| rule.lines().collect()).collect();
    assert!(rules.len() > 20, "{}", rules.len());
    for rule in rules {
        let name = value_of(&rule, "alert").unwrap_or_else(|| panic!("{rule:?}"));
        let of = |key| value_of(&rule, key).unwrap_or_else(|| panic!("{name} has no {key}"));
        let used = named(of("expr"), &documented);
        assert!(!used.is_empty() || of("expr").starts_with("up{"), "{name}");
        assert!(used.iter().all(|metric| documented.contains_key(metric)), "{name}: {used:?}");
        assert!(["critical", "warning", "info"].contains(&of("severity")), "{name}");
        assert!(
            of("for").ends_with(['m', 'h', 'd']) && of("summary").len() > 20 && of("description").len() > 20,
            "{name}"
        );
        let anchor = format!("/operating/runbook.html#{}", name.to_lowercase());
        assert!(of("runbook_url").ends_with(&anchor), "{name}: {}", of("runbook_url"));
        assert!(sections.remove(name), "{name} has no section in the runbook");
        let section = runbook.split(&format!("\n## {name}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        assert!(section.contains(&format!("Severity {}.", of("severity"))), "{name}");
        assert!(section.contains("\nCauses:\n") && section.contains("\nCheck:\n"), "{name}");
    }
    assert!(sections.is_empty(), "sections without an alert: {sections:?}");
    let named_in_runbook = named(&runbook, &documented);
    assert!(named_in_runbook.iter().all(|metric| documented.contains_key(metric)), "{named_in_runbook:?}");
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let (documented, _) = book();
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut used = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            used.extend(named(target["expr"].as_str().unwrap(), &documented));
        }
    }
    assert!(used.len() > 30, "{used:?}");
    let missing: Vec<_> = used.iter().filter(|metric| !documented.contains_key(*metric)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
}
