//! Every transcript in `transcripts/` has the output that is written there. `UPDATE_TRANSCRIPTS=1` rewrites them.

use std::path::Path;

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the environment decides whether to rewrite the transcripts, not what happens in them"
)]
fn transcripts_have_the_written_output() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of transcripts exists")
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 7, "the transcripts are there");
    for path in paths {
        let written = std::fs::read_to_string(&path).expect("the transcript is readable");
        let told =
            cartwheel_sim::transcript::replay(&written).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        if std::env::var("UPDATE_TRANSCRIPTS").is_ok() {
            std::fs::write(&path, &told).expect("the transcript is writable");
        } else {
            assert_eq!(told, written, "{}: set UPDATE_TRANSCRIPTS=1 to rewrite it", path.display());
        }
    }
}

/// Three zones with two nodes each, and keys of all partitions. Whichever zone is lost, every read and write through the others succeeds, strong or
/// not. Nothing that was written before or meanwhile is missing afterwards.
#[test]
fn the_loss_of_a_zone_loses_no_write_and_refuses_no_request() {
    for (lost, left) in [(["n1", "n2"], ["n3", "n6"]), (["n3", "n4"], ["n5", "n1"]), (["n5", "n6"], ["n2", "n4"])] {
        let [one, other] = left;
        let keys: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
        let mut story = "cluster n1:a n2:a n3:b n4:b n5:c n6:c strict\n".to_owned();
        let mut expected: Vec<String> = Vec::new();
        let mut tell = |command: String, answer: &str| {
            story += &(command + "\n");
            expected.extend((!answer.is_empty()).then(|| answer.to_owned()));
        };
        for key in &keys {
            tell(format!("put {} {key} before as {key}", lost[0]), "stored on");
        }
        lost.into_iter().for_each(|node| tell(format!("crash {node}"), ""));
        for key in &keys {
            tell(format!("get {one} {key}"), "before,");
            tell(format!("put {other} {key} meanwhile after {key} as {key}"), "stored on 2 homes");
            tell(format!("get {one} {key} strong"), "meanwhile,");
            tell(format!("put {one} {key} strongly strong after {key} as {key}"), "stored on 2 homes");
            tell(format!("get {other} {key} strong after {key}"), "strongly,");
        }
        lost.into_iter().for_each(|node| tell(format!("start {node}"), ""));
        for key in &keys {
            tell(format!("get {} {key} r=3", lost[1]), "strongly,");
        }
        let told = cartwheel_sim::transcript::replay(&(story + "----\n")).expect("the transcript is valid");
        let (_, answers) = told.split_once("----\n").expect("the transcript has output");
        let answers: Vec<&str> = answers.lines().collect();
        assert_eq!(answers.len(), expected.len(), "{told}");
        for (answer, expected) in answers.into_iter().zip(expected) {
            assert!(answer.starts_with(&expected), "zone of {}: {answer}, not {expected}", lost[0]);
        }
    }
}
