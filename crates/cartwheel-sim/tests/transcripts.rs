//! Every story in `transcripts/` is told as it is written there. With `UPDATE_TRANSCRIPTS=1` they are written anew.

use std::path::Path;

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the environment says whether to rewrite the stories, not what happens in them"
)]
fn stories_are_told_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder of transcripts")
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 6, "the stories are there");
    for path in paths {
        let written = std::fs::read_to_string(&path).expect("a readable transcript");
        let told =
            cartwheel_sim::transcript::retell(&written).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        if std::env::var("UPDATE_TRANSCRIPTS").is_ok() {
            std::fs::write(&path, &told).expect("a writable transcript");
        } else {
            assert_eq!(told, written, "{}: set UPDATE_TRANSCRIPTS=1 to rewrite it", path.display());
        }
    }
}
