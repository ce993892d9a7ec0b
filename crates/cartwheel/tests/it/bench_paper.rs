//! `cartwheel bench paper`: each part is measured and stands beside the paper's figures.

use std::fs;
use std::process::Command;

use crate::harness::CARTWHEEL;
use serde_json::Value;

#[test]
fn each_part_stands_beside_the_paper() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let json = results.path().join("paper.json");
    let output = Command::new(CARTWHEEL)
        .args(["bench", "paper", "--part", "table-2,latencies,versions", "--nodes", "4", "--keys", "50"])
        .args(["--value-size", "100", "--connections", "4", "--seconds", "1", "--rounds", "1"])
        .args(["--windows", "2", "--window-seconds", "1", "--rate", "100", "--dir"])
        .arg(dir.path())
        .arg("--json")
        .arg(&json)
        .arg("--svg-dir")
        .arg(results.path().join("figures"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    for part in
        ["\nserver-driven ", "\nclient-driven ", "\nthe paper, client-driven ", "\nfigure 5: ", "\na node killed, "]
    {
        assert!(printed.contains(part), "{part:?} is missing:\n{printed}");
    }
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert!(report["table_2"][1]["read"]["p999_us"].as_f64().is_some_and(|us| us > 0.0), "{report}");
    assert_eq!(report["windows"].as_array().map(Vec::len), Some(2));
    assert!(report["versions"][0]["reads"][0].as_u64().is_some_and(|count| count > 0), "{report}");
    assert_eq!(report["figure_6"], Value::Null);
    let figures = fs::read_dir(results.path().join("figures")).unwrap();
    let mut names: Vec<_> = figures.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["figure-4.svg", "figure-5.svg"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the temporary data is removed");
}
