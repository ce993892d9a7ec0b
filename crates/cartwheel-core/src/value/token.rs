//! Positions on the ring.

use std::fmt;

use md5::{Digest, Md5};

/// A position on the ring `0..2^128`: the MD5 hash of a key (paper, section 4.2).
///
/// MD5 spreads keys evenly. It is no protection, and nothing relies on it for protection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u128);

impl Token {
    /// The token at `position`.
    pub const fn new(position: u128) -> Self {
        Self(position)
    }

    /// The token of `key` in `bucket`.
    ///
    /// The bucket's length is hashed first, so that no two (bucket, key) pairs hash the same bytes.
    pub fn of_key(bucket: &[u8], key: &[u8]) -> Self {
        let mut md5 = Md5::new();
        md5.update((bucket.len() as u32).to_be_bytes());
        md5.update(bucket);
        md5.update(key);
        Self(u128::from_be_bytes(md5.finalize().into()))
    }

    /// The first token of a hash slot's range.
    pub const fn of_slot(slot: u16) -> Self {
        Self((slot as u128) << 114)
    }

    /// This token moved to the range of a hash slot: the slot is its first 14 bits, and the first 114 bits of the old token follow.
    #[must_use]
    pub(crate) const fn in_slot(self, slot: u16) -> Self {
        Self((slot as u128) << 114 | self.0 >> 14)
    }

    /// The token of a bare name, such as a node's.
    pub fn of_name(name: &str) -> Self {
        Self(u128::from_be_bytes(Md5::digest(name.as_bytes()).into()))
    }

    /// The position on the ring.
    pub const fn position(self) -> u128 {
        self.0
    }

    /// The position as big-endian bytes, which sort as the ring does.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_tokens_are_md5() {
        // RFC 1321, appendix A.5.
        assert_eq!(Token::of_name("").to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Token::of_name("abc").to_string(), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn moving_a_byte_from_key_to_bucket_changes_the_token() {
        assert_ne!(Token::of_key(b"ab", b"c"), Token::of_key(b"a", b"bc"));
    }
}
