//! Keys of buckets, and their positions on the ring.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::value::token::Token;

/// The longest bucket name in bytes.
pub const BUCKET_BYTES_MAX: usize = 255;
/// The longest key in bytes.
pub const KEY_BYTES_MAX: usize = 4096;

/// A key of a bucket with its token. Keys sort in ring order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    token: Token,
    bucket: Bytes,
    name: Bytes,
}

impl Hash for Key {
    /// The token is a hash of the rest.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.token.hash(state);
    }
}

/// Why a bucket and a key do not form a valid key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyError {
    /// The bucket name has this invalid length in bytes.
    BucketLength(usize),
    /// The key has this invalid length in bytes.
    KeyLength(usize),
    /// The bytes are not a storage key.
    Malformed,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BucketLength(len) => {
                write!(f, "the bucket name is {len} bytes long: use 1 to {BUCKET_BYTES_MAX}")
            }
            Self::KeyLength(len) => write!(f, "the key is {len} bytes long: use 1 to {KEY_BYTES_MAX}"),
            Self::Malformed => f.write_str("these bytes are not a storage key"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Checks a bucket's name.
///
/// # Errors
/// If it is empty or longer than the contract allows.
pub const fn check_bucket(name: &[u8]) -> Result<(), KeyError> {
    if name.is_empty() || name.len() > BUCKET_BYTES_MAX { Err(KeyError::BucketLength(name.len())) } else { Ok(()) }
}

impl Key {
    /// The key called `name` in `bucket`.
    ///
    /// # Errors
    /// If either is empty or longer than the contract allows.
    pub fn new(bucket: Bytes, name: Bytes) -> Result<Self, KeyError> {
        check_bucket(&bucket)?;
        if name.is_empty() || name.len() > KEY_BYTES_MAX {
            return Err(KeyError::KeyLength(name.len()));
        }
        Ok(Self { token: Token::of_key(&bucket, &name), bucket, name })
    }

    /// Its place on the ring.
    pub const fn token(&self) -> Token {
        self.token
    }

    /// Its bucket's name.
    pub const fn bucket(&self) -> &Bytes {
        &self.bucket
    }

    /// Its name in the bucket.
    pub const fn name(&self) -> &Bytes {
        &self.name
    }

    /// The key under which its record is stored: token, bucket length, bucket, name. A partition is one range of storage keys, and within a
    /// token they sort as [`Key`] does.
    pub fn storage_key(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.storage_key_len());
        bytes.extend_from_slice(&self.token.to_bytes());
        bytes.push(self.bucket.len() as u8);
        bytes.extend_from_slice(&self.bucket);
        bytes.extend_from_slice(&self.name);
        bytes.into()
    }

    /// The length of [`Self::storage_key`].
    pub const fn storage_key_len(&self) -> usize {
        17 + self.bucket.len() + self.name.len()
    }

    /// The bucket in a storage key; `None` if `bytes` are too short for one.
    pub fn bucket_of_storage_key(bytes: &[u8]) -> Option<&[u8]> {
        let bucket_len = usize::from(*bytes.get(16)?);
        bytes.get(17..17 + bucket_len)
    }

    /// The token in a storage key; `None` if `bytes` are too short for one.
    pub fn token_of_storage_key(bytes: &[u8]) -> Option<Token> {
        Some(Token::new(u128::from_be_bytes(*bytes.first_chunk()?)))
    }

    /// Decodes a storage key.
    ///
    /// # Errors
    /// If `bytes` are not a storage key.
    pub fn from_storage_key(bytes: &[u8]) -> Result<Self, KeyError> {
        let bucket = Self::bucket_of_storage_key(bytes).ok_or(KeyError::Malformed)?;
        let name = &bytes[17 + bucket.len()..];
        let key = Self::new(Bytes::copy_from_slice(bucket), Bytes::copy_from_slice(name))?;
        if key.token.to_bytes() == bytes[..16] { Ok(key) } else { Err(KeyError::Malformed) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket.escape_ascii(), self.name.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_bounded() {
        let key = |bucket: usize, name: usize| Key::new(vec![b'b'; bucket].into(), vec![b'k'; name].into());
        assert_eq!(key(0, 1), Err(KeyError::BucketLength(0)));
        assert_eq!(key(256, 1), Err(KeyError::BucketLength(256)));
        assert_eq!(key(1, 0), Err(KeyError::KeyLength(0)));
        assert_eq!(key(1, 4097), Err(KeyError::KeyLength(4097)));
        assert!(key(255, 4096).is_ok());
    }

    proptest! {
        #[test]
        fn a_storage_key_decodes_to_its_key(bucket in "[ab/]{1,4}", name in prop::collection::vec(any::<u8>(), 1..9)) {
            let key = Key::new(bucket.into_bytes().into(), name.into()).unwrap();
            let storage_key = key.storage_key();
            prop_assert_eq!(Key::bucket_of_storage_key(&storage_key), Some(key.bucket().as_ref()));
            prop_assert_eq!(Key::from_storage_key(&key.storage_key()), Ok(key));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Key::from_storage_key(&bytes);
        }
    }
}
