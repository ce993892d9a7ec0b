//! Index entries of live keys, by bucket: how a node finds a bucket's keys without reading those of others.
//!
//! An entry is the bucket, its generation, the key's token, and its name. So the keys of a generation are one range, in the order of their
//! tokens, and the generations of a bucket follow each other in time.

use bytes::Bytes;

use crate::value::hlc::Hlc;
use crate::value::key::{Generation, Key, Placement};
use crate::value::position::Position;

/// The first byte of an entry.
const MARK: u8 = b'k';
/// Time, placement and token.
const FIXED_BYTES: usize = 8 + 4 + 16;

/// The entry of a key.
pub fn entry(key: &Key) -> Bytes {
    let mut entry = of_generation(key.bucket(), key.generation());
    entry.extend_from_slice(&key.token().to_bytes());
    entry.extend_from_slice(key.name());
    entry.into()
}

/// The key of an entry; `None` if it is not an entry of this kind.
pub fn parse(entry: &[u8]) -> Option<Key> {
    let (&MARK, rest) = entry.split_first()? else { return None };
    let (&bucket_len, rest) = rest.split_first()?;
    let (bucket, rest) = rest.split_at_checked(bucket_len.into())?;
    let (fixed, name) = rest.split_first_chunk::<FIXED_BYTES>()?;
    let since = Hlc::from_bits(u64::from_be_bytes(*fixed.first_chunk()?));
    let placement = Placement::from_number(u32::from_be_bytes(*fixed[8..].first_chunk()?))?;
    let generation = Generation { since, placement };
    Key::of_generation(generation, Bytes::copy_from_slice(bucket), Bytes::copy_from_slice(name)).ok()
}

/// The keys of a bucket's generation from `after` on: the first possible entry, and the end, excluded.
pub fn range(bucket: &[u8], generation: Generation, after: &Position) -> (Bytes, Bytes) {
    let start = of_generation(bucket, generation);
    let from = [&start[..], after.as_bytes()].concat();
    (from.into(), end_of(start))
}

/// The keys of all generations of a bucket before the one that began at `since`: the first possible entry, and the end, excluded.
pub fn before(bucket: &[u8], since: Hlc) -> (Bytes, Bytes) {
    let first = of_bucket(bucket);
    let mut end = first.clone();
    end.extend_from_slice(&since.to_bits().to_be_bytes());
    (first.into(), end.into())
}

fn of_bucket(bucket: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + bucket.len() + FIXED_BYTES);
    bytes.extend_from_slice(&[MARK, bucket.len() as u8]);
    bytes.extend_from_slice(bucket);
    bytes
}

fn of_generation(bucket: &[u8], generation: Generation) -> Vec<u8> {
    let mut bytes = of_bucket(bucket);
    bytes.extend_from_slice(&generation.since.to_bits().to_be_bytes());
    bytes.extend_from_slice(&generation.placement.number().to_be_bytes());
    bytes
}

/// The least byte string above all that begin with `prefix`, which is not all 255: it begins with the mark.
fn end_of(mut prefix: Vec<u8>) -> Bytes {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    prefix.into()
}

/// The place directly after the key of an entry.
pub(crate) fn after(entry: &[u8], bucket: &[u8]) -> Position {
    let head = of_bucket(bucket).len() + 8 + 4;
    Position::from_bytes([entry.get(head..).unwrap_or_default(), &[0]].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(since: u64, bucket: &'static str, name: &'static str) -> Key {
        let generation = Generation { since: Hlc::from_bits(since), placement: Placement::Name };
        Key::of_generation(generation, bucket.into(), name.into()).unwrap()
    }

    #[test]
    fn entries_lie_in_the_range_of_their_generation_alone() {
        let of = key(255, "b", "x");
        let (from, upto) = range(b"b", of.generation(), &Position::default());
        for (other, is_in) in [
            (key(255, "b", "x"), true),
            (key(255, "b", "another"), true),
            (key(254, "b", "x"), false),
            (key(256, "b", "x"), false),
            (key(255, "bb", "x"), false),
            (key(255, "a", "x"), false),
        ] {
            let entry = entry(&other);
            assert_eq!(from <= entry && entry < upto, is_in, "{other:?}");
            assert_eq!(parse(&entry), Some(other.clone()));
            let (from, upto) = before(b"b", Hlc::from_bits(255));
            assert_eq!(from <= entry && entry < upto, other == key(254, "b", "x"), "{other:?}");
        }
        assert_eq!(parse(b"hint"), None);
    }

    #[test]
    fn a_range_goes_on_after_a_key() {
        let key = key(0, "b", "x");
        let (at, after) = (Position::before(&key), Position::after(&key));
        let from = |position| range(b"b", key.generation(), position).0;
        assert!(from(&at) <= entry(&key) && from(&after) > entry(&key));
        assert_eq!(super::after(&entry(&key), b"b"), after);
    }
}
