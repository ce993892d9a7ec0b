//! The form of every object of a backup: a head, the payload, perhaps encrypted, and a checksum.
//!
//! | bytes | contents |
//! | --- | --- |
//! | 8 | `CWBACKUP` |
//! | 1 | the version of this form, 1 |
//! | 1 | the kind of the payload ([`ObjectKind`]) |
//! | 1 | 0: not encrypted; 1: ChaCha20-Poly1305 |
//! | 32 | only if encrypted: the salt |
//! | any | the payload; if encrypted, with the 16 bytes of its tag |
//! | 32 | BLAKE3 of all bytes before, the id of the object |
//!
//! Each encrypted object has a key of its own, derived from the key in the key file and the random salt, and is encrypted once. So the nonce is
//! zero. The head with the salt is authenticated too.

use std::path::Path;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::BackupError;

const MAGIC: &[u8; 8] = b"CWBACKUP";
const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 3;
const SALT_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 32;
const OBJECT_CONTEXT: &str = "cartwheel backup v1: the key of an object";
const CHECK_CONTEXT: &str = "cartwheel backup v1: the check of a key";

/// What a payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum ObjectKind {
    /// Encoded records.
    Records = 1,
    /// A finished backup.
    Manifest = 2,
    /// The beginning of an unfinished backup.
    Begun = 3,
    /// A finished partition of an unfinished backup.
    Part = 4,
}

/// The key of a place's backups.
#[derive(Clone)]
pub(super) struct BackupKey([u8; 32]);

impl BackupKey {
    /// Reads a key file.
    pub(super) fn read(path: &Path) -> Result<Self, BackupError> {
        let bad = |why: String| BackupError::KeyFile(path.to_path_buf(), why);
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let hash =
            blake3::Hash::from_hex(text.trim()).map_err(|_| bad("it has no 64 hexadecimal digits".to_owned()))?;
        Ok(Self(*hash.as_bytes()))
    }

    /// What a place remembers to tell the right key from others; it does not reveal the key.
    pub(super) fn check(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key(CHECK_CONTEXT);
        hasher.update(&self.0).finalize().to_hex().to_string()
    }

    fn of_object(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let mut hasher = blake3::Hasher::new_derive_key(OBJECT_CONTEXT);
        let key = hasher.update(&self.0).update(salt).finalize();
        UnboundKey::new(&CHACHA20_POLY1305, key.as_bytes()).ok().map(LessSafeKey::new)
    }
}

/// Why an object is of no use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("its checksum does not match")]
    Damaged,
    #[error("a newer build wrote it (version {0})")]
    Version(u8),
    #[error("it is encrypted: pass --key-file")]
    NeedsKey,
    #[error("it was encrypted with another key, or forged")]
    OtherKey,
    #[error("it holds something else than its name says")]
    OtherKind,
}

/// Makes an object.
///
/// # Errors
/// If the system provides no randomness.
pub(super) fn seal(key: Option<&BackupKey>, kind: ObjectKind, payload: &[u8]) -> Result<Vec<u8>, BackupError> {
    let mut object = Vec::with_capacity(HEAD_BYTES + SALT_BYTES + payload.len() + 16 + CHECKSUM_BYTES);
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&[VERSION, kind as u8, if key.is_some() { SEALED } else { PLAIN }]);
    match key {
        None => object.extend_from_slice(payload),
        Some(key) => {
            let mut salt = [0; SALT_BYTES];
            getrandom::fill(&mut salt).map_err(|_| BackupError::Encryption)?;
            object.extend_from_slice(&salt);
            let mut sealed = payload.to_vec();
            let cipher = key.of_object(&salt).ok_or(BackupError::Encryption)?;
            cipher
                .seal_in_place_append_tag(nonce(), Aad::from(&object[..]), &mut sealed)
                .map_err(|_| BackupError::Encryption)?;
            object.extend_from_slice(&sealed);
        }
    }
    let checksum = blake3::hash(&object);
    object.extend_from_slice(checksum.as_bytes());
    Ok(object)
}

/// The id of an object, in hexadecimal; its checksum must match.
pub(super) fn id_of(object: &[u8]) -> Result<String, Unusable> {
    let (body, checksum) = object.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Unusable::Damaged)?;
    let hash = blake3::hash(body);
    if hash.as_bytes() == checksum { Ok(hash.to_hex().to_string()) } else { Err(Unusable::Damaged) }
}

/// The payload of an object.
pub(super) fn open(key: Option<&BackupKey>, kind: ObjectKind, object: &[u8]) -> Result<Vec<u8>, Unusable> {
    id_of(object)?;
    let body = &object[..object.len() - CHECKSUM_BYTES];
    let (head, rest) = body.split_first_chunk::<HEAD_BYTES>().ok_or(Unusable::Damaged)?;
    let [version, its_kind, sealing] = [head[8], head[9], head[10]];
    if head[..8] != *MAGIC {
        return Err(Unusable::OtherKind);
    }
    if version != VERSION || sealing > SEALED {
        return Err(Unusable::Version(version));
    }
    if its_kind != kind as u8 {
        return Err(Unusable::OtherKind);
    }
    match (sealing, key) {
        // With a key, nothing that was not encrypted with it is believed.
        (PLAIN, Some(_)) => Err(Unusable::OtherKey),
        (PLAIN, None) => Ok(rest.to_vec()),
        (_, None) => Err(Unusable::NeedsKey),
        (_, Some(key)) => {
            let (salt, sealed) = rest.split_first_chunk::<SALT_BYTES>().ok_or(Unusable::Damaged)?;
            let (mut payload, authenticated) = (sealed.to_vec(), &body[..HEAD_BYTES + SALT_BYTES]);
            let cipher = key.of_object(salt).ok_or(Unusable::OtherKey)?;
            let opened = cipher.open_in_place(nonce(), Aad::from(authenticated), &mut payload);
            let len = opened.map_err(|_| Unusable::OtherKey)?.len();
            payload.truncate(len);
            Ok(payload)
        }
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: BackupKey = BackupKey([7; 32]);

    #[test]
    fn an_object_opens_as_what_it_is_with_its_key_alone() {
        for key in [None, Some(&KEY)] {
            let object = seal(key, ObjectKind::Records, b"milk").unwrap();
            assert_eq!(open(key, ObjectKind::Records, &object).unwrap(), b"milk");
            assert_eq!(open(key, ObjectKind::Manifest, &object), Err(Unusable::OtherKind));
            assert_eq!(open(Some(&BackupKey([8; 32])), ObjectKind::Records, &object), Err(Unusable::OtherKey));
        }
        let object = seal(Some(&KEY), ObjectKind::Records, b"milk").unwrap();
        assert_eq!(open(None, ObjectKind::Records, &object), Err(Unusable::NeedsKey));
        assert!(!object.windows(4).any(|bytes| bytes == b"milk"));
        assert_ne!(object, seal(Some(&KEY), ObjectKind::Records, b"milk").unwrap(), "each object has a key of its own");
    }

    #[test]
    fn any_flipped_bit_or_cut_is_noticed() {
        let object = seal(Some(&KEY), ObjectKind::Part, b"milk").unwrap();
        for bit in 0..object.len() * 8 {
            let mut spoilt = object.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(Some(&KEY), ObjectKind::Part, &spoilt), Err(Unusable::Damaged), "bit {bit}");
        }
        for len in 0..object.len() {
            assert!(open(Some(&KEY), ObjectKind::Part, &object[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_forger_who_mends_the_checksum_is_noticed_too() {
        let mut object = seal(Some(&KEY), ObjectKind::Part, b"milk").unwrap();
        let end = object.len() - CHECKSUM_BYTES;
        object[end - 1] ^= 1;
        let checksum = blake3::hash(&object[..end]);
        object[end..].copy_from_slice(checksum.as_bytes());
        assert_eq!(open(Some(&KEY), ObjectKind::Part, &object), Err(Unusable::OtherKey));
    }
}
