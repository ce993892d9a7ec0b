use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cartwheel_core::cluster::liveness::{Liveness, PeerStatus, Status, Why};
use cartwheel_core::cluster::sizes::Backlog;
use cartwheel_core::event::{Event, Repair};
use cartwheel_core::value::dot::NodeId;
use cartwheel_core::value::hlc::WallMs;
use cartwheel_core::value::key::Key;

use super::*;
use crate::shard;

/// The samples of an OpenMetrics text. It checks that every sample belongs to a family introduced with a help and a type, that no family or
/// sample occurs twice, that names and suffixes match the type, and that a histogram's buckets grow.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut help, mut kind) = (String::new(), String::new(), String::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            assert!(text.len() > 10 && text.ends_with('.') && !text.ends_with(".."), "{line}");
            (family, help) = (name.to_owned(), name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, declared) = rest.split_once(' ').unwrap();
            assert_eq!(name, help, "a type without a help");
            assert!(["counter", "gauge", "histogram"].contains(&declared), "{line}");
            declared.clone_into(&mut kind);
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is not of the family {family}"));
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                _ => &["_sum", "_count", "_bucket"],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite());
            assert_eq!(samples.insert(sample.to_owned(), value), None, "{sample} comes twice");
        }
    }
    check_histograms(body, &samples);
    samples
}

fn check_histograms(text: &str, samples: &BTreeMap<String, f64>) {
    let mut last = (String::new(), 0.0);
    for line in text.lines().filter(|line| line.contains("_bucket{le=")) {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once("_bucket{le=\"").unwrap();
        let (bound, others) = labels.split_once('"').unwrap();
        let others = others.trim_start_matches(',').trim_end_matches('}');
        let series = if others.is_empty() { format!("{name}_count") } else { format!("{name}_count{{{others}}}") };
        let value: f64 = value.parse().unwrap();
        if last.0 == series {
            assert!(value >= last.1, "{line} is less than the bucket before");
        }
        if bound == "+Inf" {
            assert_eq!(samples[&series], value, "{line} is not all");
        }
        last = (series, value);
    }
}

#[test]
fn an_invalid_text_is_detected() {
    let good = "# HELP a_b What it is for.\n# TYPE a_b counter\na_b_total 1\n# EOF\n";
    assert_eq!(parse(good)["a_b_total"], 1.0);
    for (right, wrong) in [
        ("# EOF\n", ""),
        ("# HELP a_b What it is for.\n", ""),
        ("a_b_total 1\n", "a_b 1\n"),
        ("a_b_total 1\n", "a_b_total 1\na_b_total 1\n"),
        ("a_b_total 1\n", "c_total 1\n"),
        ("counter", "counters"),
    ] {
        let text = good.replace(right, wrong);
        assert!(std::panic::catch_unwind(|| parse(&text)).is_err(), "{text}");
    }
}

#[test]
fn liveness_statuses_are_counted() {
    let metrics = Metrics::new(vec![], &ShardMetrics::default(), &TraceMetrics::default(), Board::default());
    let peer_status = |status| PeerStatus { status, since: WallMs(0), why: Why::Heard };
    let thinks = |one, other| Liveness::new([(NodeId::new(1), peer_status(one)), (NodeId::new(2), peer_status(other))]);
    let before = thinks(Status::Alive, Status::Alive);
    metrics.liveness.changed(&Liveness::default(), &before);
    let at_first = parse(&metrics.text());
    assert_eq!(
        (at_first["cartwheel_members{status=\"alive\"}"], at_first["cartwheel_members{status=\"down\"}"]),
        (2.0, 0.0)
    );
    metrics.liveness.changed(&before, &thinks(Status::Alive, Status::Suspect));
    metrics.liveness.refused(3);
    let after = parse(&metrics.text());
    assert_eq!(
        (after["cartwheel_members{status=\"alive\"}"], after["cartwheel_members{status=\"suspect\"}"]),
        (1.0, 1.0)
    );
    assert_eq!(after["cartwheel_liveness_changes_total{status=\"suspect\"}"], 1.0);
    assert_eq!(after["cartwheel_liveness_changes_total{status=\"alive\"}"], 0.0);
    assert_eq!(after["cartwheel_probe_refusals_total"], 3.0);
}

#[test]
fn a_shard_counts_its_events_and_commits() {
    let counted = ShardMetrics::default();
    let (handle, _inbox) = shard::counted_inbox(&counted, &shard::Watching::default()).unwrap();
    let metrics = Metrics::new(vec![handle], &counted, &TraceMetrics::default(), Board::default());
    let before = parse(&metrics.text());
    let key = Key::new("b".into(), "k".into()).unwrap();
    let node = NodeId::new(1);
    counted.event(&Event::Repaired(key.clone(), node, Repair::Read));
    counted.event(&Event::Repaired(key.clone(), node, Repair::Read));
    counted.event(&Event::Repaired(key.clone(), node, Repair::Exchange));
    counted.event(&Event::TreesUnready { before: 0, now: 7 });
    counted.event(&Event::TreesUnready { before: 7, now: 3 });
    counted.tombstones(0, 5);
    counted.tombstones(5, 4);
    counted.event(&Event::DotCollision(key));
    counted.event(&Event::StrayMessage(node));
    counted.write_forwarded();
    counted.event(&Event::NotAHome(node));
    counted.event(&Event::HintDelivered(node));
    counted.event(&Event::HintsHeld { home: node, before: Backlog::default(), now: Backlog { records: 3, bytes: 70 } });
    counted.event(&Event::HintsFull { is_full: true, bytes_max: 70 });
    counted.hints().set_bytes_max(140);
    counted.event(&Event::ClockOff { offset_ms: 20_000, refuses: true });
    counted.commit(5, Duration::from_millis(3), false);
    counted.commit(1, Duration::from_millis(3), true);
    let after = parse(&metrics.text());
    let grew = |name: &str| after[name] - before[name];
    assert_eq!(grew("cartwheel_repairs_total{kind=\"read\"}"), 2.0);
    assert_eq!(grew("cartwheel_repairs_total{kind=\"exchange\"}"), 1.0);
    assert_eq!((grew("cartwheel_trees_unready"), after["cartwheel_tombstones"]), (3.0, 4.0));
    assert_eq!(grew("cartwheel_dot_collisions_total"), 1.0);
    assert_eq!(grew("cartwheel_stray_messages_total"), 1.0);
    assert_eq!(grew("cartwheel_writes_forwarded_total"), 1.0);
    assert_eq!((grew("cartwheel_not_a_home_refusals_total"), grew("cartwheel_hints_delivered_total")), (1.0, 1.0));
    let held = |name: &str| after[&format!("cartwheel_{name}{{peer=\"{node}\"}}")];
    assert_eq!((held("hints_held"), held("hints_held_bytes")), (3.0, 70.0));
    assert_eq!((after["cartwheel_hints_full"], after["cartwheel_hints_bytes_max"]), (1.0, 140.0));
    assert_eq!(grew("cartwheel_records_lost_total"), 0.0);
    assert_eq!((grew("cartwheel_clock_alarms_total"), after["cartwheel_clock_refuses_writes"]), (1.0, 1.0));
    assert_eq!((grew("cartwheel_store_commit_writes_sum"), grew("cartwheel_store_commit_failures_total")), (6.0, 1.0));
    assert_eq!(after["cartwheel_store_commit_duration_seconds_bucket{le=\"0.0016\"}"], 0.0);
    assert_eq!(after["cartwheel_store_commit_duration_seconds_bucket{le=\"0.0032\"}"], 2.0);
    assert_eq!(after["cartwheel_shard_inbox_waiting{shard=\"0\"}"], 0.0);
    counted.event(&Event::ClockOff { offset_ms: 0, refuses: false });
    let at_last = parse(&metrics.text());
    assert_eq!((at_last["cartwheel_clock_alarms_total"], at_last["cartwheel_clock_refuses_writes"]), (1.0, 0.0));
}
