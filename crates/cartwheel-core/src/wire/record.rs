//! Encoding of records for a store.

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{PRETENDS, Protocol, decode_record, encode_record};
use crate::store::record::{OLDEST_VERSION, Record, RecordError, VERSION};

/// The version that a build pretends to support ([`PRETENDS`]): its head has some additional zeros.
const PRETENDED_VERSION: u8 = VERSION + 1;
const CHECKSUM_BYTES: usize = 8;
/// The head of a record: its version and its checksum.
const HEAD_BYTES: usize = 1 + CHECKSUM_BYTES;
const PRETENDED_HEAD_BYTES: usize = HEAD_BYTES + 4;

impl Record {
    /// Encodes the record: version, checksum of storage key and contents, contents.
    ///
    /// The checksum covers the storage key, so that a record that a disk returns under another key is detected.
    pub fn encode(&self, storage_key: &[u8]) -> Bytes {
        self.encode_as(storage_key, Protocol::OLDEST)
    }

    /// Encodes the record in the form that is stored once all members support `protocol`.
    pub fn encode_as(&self, storage_key: &[u8], protocol: Protocol) -> Bytes {
        let (version, head_bytes) = match protocol {
            protocol if protocol.is_pretended() => (PRETENDED_VERSION, PRETENDED_HEAD_BYTES),
            protocol if protocol >= Protocol::KEY_INDEX => (VERSION, HEAD_BYTES),
            _ => (OLDEST_VERSION, HEAD_BYTES),
        };
        let mut bytes = encode_record(self, head_bytes);
        bytes[0] = version;
        let checksum = checksum(version, storage_key, &bytes[HEAD_BYTES..]);
        bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
        bytes.into()
    }

    /// Decodes the record stored as `bytes` under `storage_key`.
    ///
    /// # Errors
    /// If the bytes are damaged or were stored under another key, or are of a newer build.
    pub fn decode(bytes: &Bytes, storage_key: &[u8]) -> Result<Self, RecordError> {
        let &version = bytes.first().ok_or(RecordError::Damaged)?;
        if bytes.len() < HEAD_BYTES || bytes[1..HEAD_BYTES] != checksum(version, storage_key, &bytes[HEAD_BYTES..]) {
            return Err(RecordError::Damaged);
        }
        let head_bytes = match version {
            OLDEST_VERSION..=VERSION => HEAD_BYTES,
            PRETENDED_VERSION if PRETENDS => PRETENDED_HEAD_BYTES,
            version => return Err(RecordError::Version(version)),
        };
        if bytes.len() < head_bytes {
            return Err(RecordError::Damaged);
        }
        decode_record(bytes.slice(head_bytes..)).map_err(|_| RecordError::Damaged)
    }
}

/// The checksum detects damage by a disk, not forgery. A cryptographic hash at each read would cost more for no benefit.
///
/// In every version it follows the first byte and covers everything after it, so that a record of a newer build can be distinguished from a damaged one.
/// It also covers every version but the one in which it was introduced.
fn checksum(version: u8, storage_key: &[u8], contents: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let seed = xxh3_64(storage_key).wrapping_add(u64::from(version.wrapping_sub(OLDEST_VERSION)));
    xxh3_64_with_seed(contents, seed).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_build_is_distinguished_from_a_damaged_one() {
        let newer = VERSION + 5;
        let mut bytes = Record::default().encode(b"key").to_vec();
        bytes[0] = newer;
        assert_eq!(Record::decode(&bytes.clone().into(), b"key"), Err(RecordError::Damaged));
        let checksum = checksum(newer, b"key", &bytes[HEAD_BYTES..]);
        bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
        assert_eq!(Record::decode(&bytes.clone().into(), b"key"), Err(RecordError::Version(newer)));
        assert_eq!(Record::decode(&bytes.into(), b"another"), Err(RecordError::Damaged));
    }

    /// The build that pretends to be newer has forms of its own, and also reads the current ones.
    #[test]
    fn records_stored_before_an_upgrade_are_readable_after_it() {
        for protocol in [Protocol::OLDEST, Protocol::NEWEST] {
            let bytes = Record::default().encode_as(b"key", protocol);
            assert_eq!(Record::decode(&bytes, b"key"), Ok(Record::default()));
        }
    }
}
