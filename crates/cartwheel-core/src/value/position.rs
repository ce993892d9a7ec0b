//! Places in a list of keys.

use std::fmt;

use bytes::Bytes;

use crate::value::key::Key;

/// A place between two keys of a bucket, in the order of their tokens and names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(Bytes);

impl Position {
    /// The place directly before a key.
    pub fn before(key: &Key) -> Self {
        Self([&key.token().to_bytes()[..], key.name()].concat().into())
    }

    /// The place directly after a key.
    pub fn after(key: &Key) -> Self {
        Self([&key.token().to_bytes()[..], key.name(), &[0]].concat().into())
    }

    /// The place before all keys whose tokens begin with these 64 bits.
    pub fn of_token_bits(bits: u64) -> Self {
        Self(Bytes::copy_from_slice(&bits.to_be_bytes()))
    }

    /// The first 64 bits of the token at this place.
    pub fn token_bits(&self) -> u64 {
        let mut bits = [0; 8];
        let known = self.0.len().min(bits.len());
        bits[..known].copy_from_slice(&self.0[..known]);
        u64::from_be_bytes(bits)
    }

    /// The place that these bytes stand for.
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes that stand for it.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lies_between_the_places_before_and_after_it() {
        let key = Key::new("b".into(), "x".into()).unwrap();
        let (before, after) = (Position::before(&key), Position::after(&key));
        let bits = (key.token().position() >> 64) as u64;
        assert!(Position::of_token_bits(bits) <= before && before < after);
        assert_eq!((before.token_bits(), after.token_bits(), Position::default().token_bits()), (bits, bits, 0));
    }
}
