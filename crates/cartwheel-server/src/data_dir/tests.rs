use std::num::NonZeroU32;

use bytes::Bytes;
use cartwheel_core::value::cluster_id::ClusterId;
use cartwheel_core::value::dot::Incarnation;

use super::*;
use crate::data_dir::lineage::Lineage;

fn identity() -> Identity {
    Identity {
        name: "node-1".to_owned(),
        incarnation: Incarnation(0x0123_4567_89ab_cdef),
        boot: 0,
        lineage: Lineage::default(),
        actors: None,
        stopped: None,
        shards: NonZeroU32::MIN,
        cluster: ClusterId(42),
        secret: ClusterSecret([7; 32]),
        bootstrap: Bytes::from_static(b"\x00founding\xff"),
        all_speak: Protocol::OLDEST,
    }
}

fn created() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    DataDir::create(dir.path(), &identity()).unwrap();
    dir
}

#[test]
fn boots_are_counted_across_openings() {
    let (dir, mut lineage) = (created(), Lineage::default());
    for boot in 1..4 {
        let mut data_dir = DataDir::open(dir.path()).unwrap();
        let marks = vec![Mark { boot: boot - 1, commit: 7 }];
        let next = data_dir.next_boot(boot.into(), marks.clone()).unwrap();
        assert_eq!(next, Begun { boot, drawn: boot.into(), marks });
        lineage = lineage.with(next.clone());
        assert_eq!(data_dir.begin_boot(next).unwrap(), boot);
        assert_eq!(data_dir.identity(), &Identity { boot, lineage: lineage.clone(), ..identity() });
    }
    assert_eq!(read_identity(dir.path()).unwrap().lineage, lineage);
    let marks = vec![Mark { boot: 3, commit: 9 }];
    let mut data_dir = DataDir::open(dir.path()).unwrap();
    let actors = ActorsSince { boot: 3, drawn: u64::MAX };
    data_dir.set_actors(actors).unwrap();
    data_dir.stopped(marks.clone()).unwrap();
    drop(data_dir);
    let mut data_dir = DataDir::open(dir.path()).unwrap();
    assert!(data_dir.was_stopped(&marks) && !data_dir.was_stopped(&[Mark { boot: 3, commit: 10 }]));
    data_dir.begin_boot(data_dir.next_boot(4, marks.clone()).unwrap()).unwrap();
    assert_eq!(data_dir.identity().actors, Some(actors));
    assert!(!data_dir.was_stopped(&marks), "the boot still runs");
    drop(data_dir);
    let ahead = DataDir::open(dir.path()).unwrap().next_boot(9, vec![Mark { boot: 5, commit: 1 }]);
    assert!(matches!(ahead, Err(DataDirError::MixedCopies(_))), "{ahead:?}");
    assert_eq!(read_identity(dir.path()).unwrap().boot, 4);
}

#[test]
fn a_directory_is_open_in_one_process_only() {
    let dir = created();
    let first = DataDir::open(dir.path()).unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::InUse(_)), "{error}");
    drop(first);
    DataDir::open(dir.path()).unwrap();
}

#[test]
fn a_directory_without_a_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::NoNode(_)), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a refused directory is left as it is");
}

#[test]
fn a_flipped_bit_is_detected() {
    let dir = created();
    let path = dir.path().join(IDENTITY_FILE);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        // White space and the case of a letter outside a string carry no meaning; any result must equal the original.
        if let Ok(read) = Identity::decode(&bytes, &path) {
            assert_eq!(read, identity(), "byte {at}");
        }
        let _ = Identity::decode(&whole[..at], &path);
    }
}

#[test]
fn an_unknown_format_is_named_in_the_error() {
    let dir = created();
    let path = dir.path().join(IDENTITY_FILE);
    for other in [1, u64::from(Protocol::NEWEST.0) - 2] {
        std::fs::write(&path, format!(r#"{{"format": {other}, "anything": "else"}}"#)).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Format { format, .. } if format == other), "{error}");
    }
}

#[test]
fn a_build_without_a_version_of_the_protocol_cannot_open_a_directory_that_uses_it() {
    let dir = created();
    let mut data_dir = DataDir::open(dir.path()).unwrap();
    let next = data_dir.next_boot(1, Vec::new()).unwrap();
    assert_eq!(data_dir.begin_boot(next).unwrap(), 1);
    let mut mark = data_dir.format_mark();
    mark.raise(Protocol::NEWEST).unwrap();
    let identity = read_identity(dir.path()).unwrap();
    assert_eq!((identity.all_speak, identity.boot), (Protocol::NEWEST, 1));
    mark.raise(Protocol(Protocol::NEWEST.0 + 1)).unwrap();
    assert_eq!(mark.all_speak(), Protocol(Protocol::NEWEST.0 + 1));
    drop(data_dir);
    let error = DataDir::open(dir.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Format { format, newest, .. } if format == newest + 1), "{error}");
    assert!(error.to_string().contains("start a newer cartwheel"), "{error}");
}

/// The files have fields that this build does not know.
#[test]
fn files_of_a_newer_build_are_not_reported_as_damaged() {
    let dir = created();
    let newer = r#"{"format": 9, "news": true}"#;
    std::fs::write(dir.path().join(EPOCH_FILE), newer).unwrap();
    std::fs::write(dir.path().join(SEEN_FILE), newer).unwrap();
    history_file(dir.path()).save(b"\x08\x09").unwrap();
    let data_dir = DataDir::open(dir.path()).unwrap();
    let errors = [
        data_dir.epoch_file().load().unwrap_err(),
        data_dir.seen_file().load().unwrap_err(),
        data_dir.history_file().load().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, DataDirError::Format { format: 9, newest: 1 | 2, .. }), "{error}");
    }
}

#[test]
fn boot_numbers_end_before_they_repeat() {
    let dir = tempfile::tempdir().unwrap();
    DataDir::create(dir.path(), &Identity { boot: Identity::BOOT_MAX, ..identity() }).unwrap();
    let error = DataDir::open(dir.path()).unwrap().next_boot(1, Vec::new()).unwrap_err();
    assert!(matches!(error, DataDirError::OutOfBoots(_)), "{error}");
}

proptest::proptest! {
    /// Whatever happens to the file, it parses to the same identity or fails.
    #[test]
    fn an_identity_parses_to_what_was_written_or_fails(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0u8..=255), 1..4),
        cut in proptest::prelude::any::<proptest::sample::Index>(),
        noise in proptest::collection::vec(0u8..=255, 0..100),
    ) {
        let path = std::path::Path::new("node.json");
        let whole = identity().encode();
        let mut spoilt = whole.clone();
        changes.iter().for_each(|(at, byte)| spoilt[at.index(whole.len())] = *byte);
        let cut_off = whole[..cut.index(whole.len())].to_vec();
        for bytes in [spoilt, cut_off, noise] {
            // JSON allows other white space; the result must be the same.
            if let Ok(read) = Identity::decode(&bytes, path) {
                proptest::prop_assert_eq!(read, identity());
            }
        }
    }
}
