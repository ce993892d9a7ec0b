//! Records as a store keeps them.

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{PRETENDS, Protocol, decode_record, encode_record};
use crate::store::record::{Record, RecordError, VERSION};

/// The version that a build pretends to know ([`PRETENDS`]): some zeros stand before what there was.
const PRETENDED_VERSION: u8 = VERSION + 1;
const CHECKSUM_BYTES: usize = 8;
/// What stands before a record's contents: its version and its checksum.
const HEAD_BYTES: usize = 1 + CHECKSUM_BYTES;
const PRETENDED_HEAD_BYTES: usize = HEAD_BYTES + 4;

impl Record {
    /// The stored form: version, checksum of storage key and contents, contents.
    ///
    /// The storage key is in the checksum, so that a record that a disk returns under another key is found out.
    pub fn encode(&self, storage_key: &[u8]) -> Bytes {
        self.encode_as(storage_key, Protocol::OLDEST)
    }

    /// The form in which a record is stored as soon as all members speak `protocol`.
    pub fn encode_as(&self, storage_key: &[u8], protocol: Protocol) -> Bytes {
        let (version, head_bytes) = match protocol.is_pretended() {
            false => (VERSION, HEAD_BYTES),
            true => (PRETENDED_VERSION, PRETENDED_HEAD_BYTES),
        };
        let mut bytes = encode_record(self, head_bytes);
        bytes[0] = version;
        let checksum = checksum(version, storage_key, &bytes[HEAD_BYTES..]);
        bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
        bytes.into()
    }

    /// The record stored as `bytes` under `storage_key`.
    ///
    /// # Errors
    /// If the bytes are not what was stored there, or whole but of a newer build.
    pub fn decode(bytes: &Bytes, storage_key: &[u8]) -> Result<Self, RecordError> {
        let &version = bytes.first().ok_or(RecordError::Damaged)?;
        if bytes.len() < HEAD_BYTES || bytes[1..HEAD_BYTES] != checksum(version, storage_key, &bytes[HEAD_BYTES..]) {
            return Err(RecordError::Damaged);
        }
        let head_bytes = match version {
            VERSION => HEAD_BYTES,
            PRETENDED_VERSION if PRETENDS => PRETENDED_HEAD_BYTES,
            version => return Err(RecordError::Version(version)),
        };
        if bytes.len() < head_bytes {
            return Err(RecordError::Damaged);
        }
        decode_record(bytes.slice(head_bytes..)).map_err(|_| RecordError::Damaged)
    }
}

/// It finds what a disk spoils, not what somebody forges: a cryptographic hash of each record read would be for nothing.
///
/// In every version it stands behind the first byte and is taken of all that follows, so that a record of a newer build is told from a
/// damaged one; later versions than the one that began with it are in it themselves.
fn checksum(version: u8, storage_key: &[u8], contents: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let seed = xxh3_64(storage_key).wrapping_add(u64::from(version.wrapping_sub(VERSION)));
    xxh3_64_with_seed(contents, seed).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_build_is_told_from_a_damaged_one() {
        let newer = VERSION + 5;
        let mut bytes = Record::default().encode(b"key").to_vec();
        bytes[0] = newer;
        assert_eq!(Record::decode(&bytes.clone().into(), b"key"), Err(RecordError::Damaged));
        let checksum = checksum(newer, b"key", &bytes[HEAD_BYTES..]);
        bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
        assert_eq!(Record::decode(&bytes.clone().into(), b"key"), Err(RecordError::Version(newer)));
        assert_eq!(Record::decode(&bytes.into(), b"another"), Err(RecordError::Damaged));
    }

    /// The build that only pretends to be newer has forms of its own, and reads those of before.
    #[test]
    fn what_was_stored_before_an_upgrade_is_read_after_it() {
        for protocol in [Protocol::OLDEST, Protocol::NEWEST] {
            let bytes = Record::default().encode_as(b"key", protocol);
            assert_eq!(Record::decode(&bytes, b"key"), Ok(Record::default()));
        }
    }
}
