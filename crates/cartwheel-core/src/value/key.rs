//! Keys of buckets, and their positions on the ring.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::value::hash_slot::hash_slot;
use crate::value::hlc::Hlc;
use crate::value::token::Token;

/// The longest bucket name in bytes.
pub const BUCKET_BYTES_MAX: usize = 255;
/// The longest key in bytes.
pub const KEY_BYTES_MAX: usize = 4096;

/// The part of a key's name that decides its token, and so its place on the ring.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Placement {
    /// The whole name: keys are spread evenly (paper, section 4.2).
    #[default]
    Name,
    /// The hash slot of Redis Cluster, and within it the whole name. Where the partitions are at most as many as the slots, each is a range of
    /// slots.
    Slot,
    /// The first bytes of the name, this many: keys that begin alike have the same token, and are stored side by side in their order.
    Prefix(u16),
}

impl Placement {
    /// The token of a key.
    fn token(self, bucket: &[u8], name: &[u8]) -> Token {
        match self {
            Self::Name => Token::of_key(bucket, name),
            Self::Slot => Token::of_key(bucket, name).in_slot(hash_slot(name)),
            Self::Prefix(bytes) => Token::of_key(bucket, &name[..name.len().min(bytes.into())]),
        }
    }

    /// Its number in stored and sent forms: 0 for the whole name.
    pub const fn number(self) -> u32 {
        match self {
            Self::Name => 0,
            Self::Slot => 1,
            Self::Prefix(bytes) => 1 + bytes as u32,
        }
    }

    /// The inverse of [`Self::number`]; `None` for a number that stands for nothing.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Name,
            1 => Self::Slot,
            _ => Self::Prefix(u16::try_from(number - 1).ok().filter(|&bytes| usize::from(bytes) <= KEY_BYTES_MAX)?),
        })
    }
}

/// A bucket's contents between two times at which it was emptied, and how its keys are placed meanwhile.
///
/// A key of one generation is another key than that of the same name in the next. So nothing of an old generation can come back, however late
/// a message or a node arrives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation {
    /// The time of the change that began it; zero for the first, which began with the bucket.
    pub since: Hlc,
    /// How its keys are placed.
    pub placement: Placement,
}

impl Generation {
    /// The first generation of every bucket.
    pub const FIRST: Self = Self { since: Hlc::ZERO, placement: Placement::Name };
}

/// A key of a bucket with its token. Keys sort as their records are stored: in ring order, and within a token as [`Key::storage_key`] says.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    token: Token,
    generation: Generation,
    bucket: Bytes,
    name: Bytes,
}

impl Hash for Key {
    /// The token is a hash of the rest, except of the generation and of what follows a prefix.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.token.hash(state);
        if self.generation != Generation::FIRST {
            self.generation.hash(state);
            self.name.hash(state);
        }
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let of_first = |key: &Self| key.generation == Generation::FIRST;
        let generations = || (of_first(self), self.generation).cmp(&(of_first(other), other.generation));
        let names =
            || (self.bucket.len(), &self.bucket, &self.name).cmp(&(other.bucket.len(), &other.bucket, &other.name));
        self.token.cmp(&other.token).then_with(generations).then_with(names)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Key {
    /// The same key, whose name shares no buffer with anything else, and whose bucket is this copy of it.
    #[must_use]
    pub fn detached(&self, bucket: Bytes) -> Self {
        debug_assert_eq!(self.bucket, bucket);
        Self { name: Bytes::copy_from_slice(&self.name), bucket, ..*self }
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

/// The bytes of a token.
const TOKEN_BYTES: usize = 16;
/// What follows the token of a key that is not of a first generation, in place of the bucket's length: no bucket has a name of no bytes.
const ESCAPE: u8 = 0;
/// Time and placement of a generation.
const GENERATION_BYTES: usize = 8 + 4;

/// The parts of a storage key.
struct Parts<'a> {
    token: Token,
    generation: Generation,
    bucket: &'a [u8],
    name: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (token, rest) = bytes.split_first_chunk::<TOKEN_BYTES>()?;
        let (generation, rest) = match rest.split_first()? {
            (&ESCAPE, rest) => {
                let (since, rest) = rest.split_first_chunk()?;
                let (placement, rest) = rest.split_first_chunk()?;
                let placement = Placement::from_number(u32::from_be_bytes(*placement))?;
                (Generation { since: Hlc::from_bits(u64::from_be_bytes(*since)), placement }, rest)
            }
            _ => (Generation::FIRST, rest),
        };
        let (&bucket_len, rest) = rest.split_first()?;
        let (bucket, name) = rest.split_at_checked(bucket_len.into())?;
        Some(Self { token: Token::new(u128::from_be_bytes(*token)), generation, bucket, name })
    }
}

impl Key {
    /// The key called `name` in the first generation of `bucket`.
    ///
    /// # Errors
    /// If either is empty or longer than the contract allows.
    pub fn new(bucket: Bytes, name: Bytes) -> Result<Self, KeyError> {
        Self::of_generation(Generation::FIRST, bucket, name)
    }

    /// The key called `name` in a generation of `bucket`.
    ///
    /// # Errors
    /// If either is empty or longer than the contract allows.
    pub fn of_generation(generation: Generation, bucket: Bytes, name: Bytes) -> Result<Self, KeyError> {
        check_bucket(&bucket)?;
        if name.is_empty() || name.len() > KEY_BYTES_MAX {
            return Err(KeyError::KeyLength(name.len()));
        }
        Ok(Self { token: generation.placement.token(&bucket, &name), generation, bucket, name })
    }

    /// The key of the same name in another generation of the bucket.
    #[must_use]
    pub fn in_generation(&self, generation: Generation) -> Self {
        let token = generation.placement.token(&self.bucket, &self.name);
        Self { token, generation, bucket: self.bucket.clone(), name: self.name.clone() }
    }

    /// Its place on the ring.
    pub const fn token(&self) -> Token {
        self.token
    }

    /// The generation of its bucket that it belongs to.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Its bucket's name.
    pub const fn bucket(&self) -> &Bytes {
        &self.bucket
    }

    /// Its name in the bucket.
    pub const fn name(&self) -> &Bytes {
        &self.name
    }

    /// The key under which its record is stored: token, generation, bucket length, bucket, name. A first generation is left out; any other is a
    /// byte 0, its time and its placement. A partition is one range of storage keys.
    pub fn storage_key(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.storage_key_len());
        bytes.extend_from_slice(&self.token.to_bytes());
        if self.generation != Generation::FIRST {
            bytes.push(ESCAPE);
            bytes.extend_from_slice(&self.generation.since.to_bits().to_be_bytes());
            bytes.extend_from_slice(&self.generation.placement.number().to_be_bytes());
        }
        bytes.push(self.bucket.len() as u8);
        bytes.extend_from_slice(&self.bucket);
        bytes.extend_from_slice(&self.name);
        bytes.into()
    }

    /// The length of [`Self::storage_key`].
    pub fn storage_key_len(&self) -> usize {
        let generation = if self.generation == Generation::FIRST { 0 } else { 1 + GENERATION_BYTES };
        TOKEN_BYTES + generation + 1 + self.bucket.len() + self.name.len()
    }

    /// The bucket in a storage key; `None` if `bytes` are not one.
    pub fn bucket_of_storage_key(bytes: &[u8]) -> Option<&[u8]> {
        Parts::of(bytes).map(|parts| parts.bucket)
    }

    /// The generation in a storage key; `None` if `bytes` are not one.
    pub fn generation_of_storage_key(bytes: &[u8]) -> Option<Generation> {
        Parts::of(bytes).map(|parts| parts.generation)
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
        let Parts { token, generation, bucket, name } = Parts::of(bytes).ok_or(KeyError::Malformed)?;
        let copied = Bytes::copy_from_slice;
        let key = Self::of_generation(generation, copied(bucket), copied(name))?;
        let is_first = bytes[TOKEN_BYTES] != ESCAPE;
        if key.token == token && is_first == (generation == Generation::FIRST) {
            Ok(key)
        } else {
            Err(KeyError::Malformed)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket.escape_ascii(), self.name.escape_ascii())?;
        if self.generation == Generation::FIRST { Ok(()) } else { write!(f, " since {:?}", self.generation.since) }
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

    /// The form in which all builds have stored keys of first generations.
    #[test]
    fn a_key_of_a_first_generation_is_stored_as_ever() {
        let key = Key::new("carts".into(), "alice".into()).unwrap();
        let token = Token::of_key(b"carts", b"alice").to_bytes();
        assert_eq!(key.storage_key(), [&token[..], b"\x05cartsalice"].concat());
    }

    fn of(placement: Placement, name: &'static str) -> Key {
        let since = Hlc::from_bits(7);
        Key::of_generation(Generation { since, placement }, "carts".into(), name.into()).unwrap()
    }

    #[test]
    fn a_slot_is_the_first_bits_of_a_token() {
        for (name, slot) in [("123456789", 0x31c3), ("foo", 12_182), ("{user1000}.following", 3_443)] {
            assert_eq!(of(Placement::Slot, name).token().position() >> 114, slot, "{name}");
        }
        assert_ne!(of(Placement::Slot, "{a}1").token(), of(Placement::Slot, "{a}2").token());
    }

    #[test]
    fn keys_with_the_same_prefix_lie_side_by_side_in_their_order() {
        let [a, b, c] = ["user-1/a", "user-1/b", "user-2/a"].map(|name| of(Placement::Prefix(6), name));
        assert!(a.token() == b.token() && a.token() != c.token());
        assert!(a < b && a.storage_key() < b.storage_key());
    }

    fn any_key() -> impl Strategy<Value = Key> {
        let placement =
            prop_oneof![Just(Placement::Name), Just(Placement::Slot), (1u16..4).prop_map(Placement::Prefix)];
        let generation =
            (0u64..3, placement).prop_map(|(since, placement)| Generation { since: Hlc::from_bits(since), placement });
        (generation, "[ab/]{1,4}", prop::collection::vec(0u8..4, 1..5)).prop_map(|(generation, bucket, name)| {
            Key::of_generation(generation, bucket.into_bytes().into(), name.into()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn a_storage_key_decodes_to_its_key(key in any_key()) {
            let storage_key = key.storage_key();
            prop_assert_eq!(storage_key.len(), key.storage_key_len());
            prop_assert_eq!(Key::bucket_of_storage_key(&storage_key), Some(key.bucket().as_ref()));
            prop_assert_eq!(Key::generation_of_storage_key(&storage_key), Some(key.generation()));
            prop_assert_eq!(Key::from_storage_key(&key.storage_key()), Ok(key));
        }

        #[test]
        fn keys_sort_as_they_are_stored(a in any_key(), b in any_key()) {
            prop_assert_eq!(a.cmp(&b), a.storage_key().cmp(&b.storage_key()));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Key::from_storage_key(&bytes);
        }
    }
}
