//! Records that a newer build has stored: a replica leaves them alone.

use bytes::Bytes;
use cartwheel_core::message::Failure;
use cartwheel_core::replica::MintRefused;
use cartwheel_core::store::record::{Record, RecordError};
use cartwheel_core::value::state::Seen;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::harness::{TestReplica, Write, key};

/// The version in which the checksum was introduced.
const FIRST_CHECKED: u8 = 2;

/// The record as a build would store it whose format differs in the version number only.
fn of_version(stored: &Bytes, more: u8) -> Bytes {
    let seed = xxh3_64(&key().storage_key()).wrapping_add(u64::from(stored[0] - FIRST_CHECKED + more));
    let checksum = xxh3_64_with_seed(&stored[9..], seed).to_le_bytes();
    [&[stored[0] + more][..], &checksum, &stored[9..]].concat().into()
}

#[test]
fn a_record_of_a_newer_build_stays_as_it_is_and_requests_on_it_fail() {
    let mut replica = TestReplica::new(1);
    replica.write(&Write::numbered(1, Seen::default()));
    let before = replica.state();
    assert_eq!(of_version(replica.stored(), 0), *replica.stored(), "the test knows the format");
    let newer = of_version(replica.stored(), 7);
    *replica.stored() = newer.clone();
    let known = Record::decode(&newer, &key().storage_key());
    assert!(matches!(known, Err(RecordError::Version(_))), "{known:?}");

    let refused = replica.mint(&Write::numbered(2, Seen::default()));
    assert_eq!(refused, Err(MintRefused::Failed(Failure::Storage)));
    replica.merge(&before);
    assert_eq!(*replica.stored(), newer, "it was not taken for lost");
}
