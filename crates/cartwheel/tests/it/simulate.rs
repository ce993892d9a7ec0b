//! `cartwheel simulate` prints the paper's figures as tables, charts and JSON, without a cluster.

use std::process::{Command, Output};

use serde_json::Value;

const CARTWHEEL: &str = env!("CARGO_BIN_EXE_cartwheel");

fn simulate(args: &[&str]) -> Output {
    Command::new(CARTWHEEL).arg("simulate").args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A small simulation, so that debug builds are quick.
const SMALL: [&str; 8] = ["placement", "--nodes", "10", "--clusters", "2", "--requests", "8000", "--keys=800"];

#[test]
fn the_papers_figures_are_shown_as_tables_and_charts() {
    let dir = tempfile::tempdir().unwrap();
    let figures = dir.path().join("new/figures");
    let shown = said(&simulate(&[&SMALL[..], &["--svg-dir", figures.to_str().unwrap()]].concat()));
    for line in ["STATE  ", "1.00 KiB  ", "256.00 KiB  ", "LOAD  ", "1/8   1000  ", "8/8   8000  "] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "no line {line}\n{shown}");
    }
    for name in ["figure-6.svg", "figure-8.svg"] {
        let svg = std::fs::read_to_string(figures.join(name)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        let line = |color: &str| svg.contains(&format!("<polyline fill=\"none\" opacity=\"1\" stroke=\"{color}\""));
        assert!(["#0072B2", "#D55E00", "#009E73"].into_iter().all(line), "each strategy has a line: {svg}");
    }
    assert_eq!(shown, said(&simulate(&SMALL)), "the same seed gives the same figures");
    assert_ne!(shown, said(&simulate(&[&SMALL[..], &["--seed", "2"]].concat())));
}

#[test]
fn the_papers_figures_are_printed_as_json() {
    let json: Value = serde_json::from_str(&said(&simulate(&[&SMALL[..], &["--json"]].concat()))).unwrap();
    assert_eq!((&json["nodes"], &json["replicas"]), (&10.into(), &3.into()));
    let points = json["efficiency"].as_array().unwrap();
    let best = |strategy: u64| {
        let of = points.iter().filter(|point| point["strategy"] == strategy);
        of.map(|point| point["efficiency"].as_f64().unwrap()).fold(0.0, f64::max)
    };
    assert!(best(3) > best(1) && best(1) > best(2) && best(3) <= 1.0, "{json}");
    let loads = json["imbalance"]["points"].as_array().unwrap();
    assert_eq!(loads.len(), 8);
    assert!(loads.iter().all(|load| load["out_of_balance"].as_array().unwrap().len() == 3), "{json}");
}

#[test]
fn the_size_of_the_membership_state_is_measured() {
    let rows: Value = serde_json::from_str(&said(&simulate(&["ring-state", "--json"]))).unwrap();
    let nodes: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["nodes"].as_u64().unwrap()).collect();
    assert_eq!(nodes, [10, 10, 100, 100, 1_000, 5_000]);
    for row in rows.as_array().unwrap() {
        let of = |name: &str| row[name].as_u64().unwrap();
        assert!(of("history_bytes") > 50 * of("nodes"), "{row}");
        assert!(of("view_bytes") > of("ring_bytes") && of("ring_bytes") > 80 * of("partitions"), "{row}");
        assert!(row["placed_ms"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(said(&simulate(&["ring-state"])).contains("ON THE WIRE"));
}

#[test]
fn invalid_flags_are_refused() {
    for wrong in
        [&["placement", "--nodes", "0"][..], &["placement", "--skew", "-1"], &["placement", "--state", "much"], &[]]
    {
        assert_eq!(simulate(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = simulate(&[&SMALL[..], &["--svg-dir", file.path().to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot write "));
}
