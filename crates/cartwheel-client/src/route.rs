//! Where keys are, computed from the ring as the nodes do.

use std::collections::HashMap;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::{Error, Placement, Ring, decode_key};

/// The homes of all keys, as of one [`Ring`]. [`Client`](crate::Client) routes requests by it; use it for requests of your own.
///
/// A table may be out of date. Then a request goes to a node that is no home of the key, which forwards it.
///
/// ```no_run
/// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
/// use cartwheel_client::HomeTable;
///
/// let ring = client.ring().await?;
/// let table = HomeTable::new(&ring)?;
/// for &home in table.homes_of(b"greetings", b"world") {
///     println!("{}", ring.members[home].http);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HomeTable {
    /// For each partition, its homes as indexes into the ring's members.
    homes: Vec<Vec<usize>>,
    /// The buckets whose keys are not placed by their whole names.
    placements: HashMap<Bytes, Placement>,
}

impl HomeTable {
    /// The table of `ring`.
    ///
    /// # Errors
    /// [`Error::UnexpectedResponse`] if the ring has no partitions, or names a home that is not among its members.
    pub fn new(ring: &Ring) -> Result<Self, Error> {
        let are_members = ring.homes.iter().flatten().all(|&home| home < ring.members.len());
        if ring.homes.is_empty() || ring.homes.len() != ring.partitions as usize || !are_members {
            let (partitions, lists) = (ring.partitions, ring.homes.len());
            let what = format!("an unusable ring ({partitions} partitions, {lists} lists of homes)");
            return Err(Error::UnexpectedResponse(what));
        }
        let placements =
            ring.placements.iter().filter_map(|(bucket, &placement)| Some((decode_key(bucket)?, placement)));
        Ok(Self { homes: ring.homes.clone(), placements: placements.collect() })
    }

    /// The homes of a key as indexes into [`Ring::members`], in the order in which coordinators contact them. Empty if none is left.
    pub fn homes_of(&self, bucket: &[u8], key: &[u8]) -> &[usize] {
        let token = match self.placements.get(bucket) {
            None | Some(Placement::Name) => token(bucket, key),
            // The slot is the first 14 bits, as if each slot were a partition of the ring.
            Some(Placement::Slot) => u128::from(hash_slot(key)) << 114 | token(bucket, key) >> 14,
            Some(&Placement::Prefix(bytes)) => token(bucket, &key[..key.len().min(bytes.into())]),
        };
        &self.homes[partition_of(token, self.homes.len())]
    }
}

/// The position of a key on the ring `0..2^128`: an MD5 hash, as in the paper's section 4.2.
///
/// The bucket's length is hashed first, so that no two (bucket, key) pairs hash the same bytes.
fn token(bucket: &[u8], key: &[u8]) -> u128 {
    let mut md5 = Md5::new();
    md5.update((bucket.len() as u32).to_be_bytes());
    md5.update(bucket);
    md5.update(key);
    u128::from_be_bytes(md5.finalize().into())
}

/// The hash slot of a key: the CRC16, in the form that XMODEM uses, of its `{hash tag}` or of all of it (Redis Cluster specification).
fn hash_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').map(|open| &key[open + 1..]);
    let tag = tag.and_then(|rest| rest.split(|&byte| byte == b'}').next().filter(|tag| tag.len() < rest.len()));
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let shifted = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    hashed.iter().fold(0, |crc, &byte| (0..8).fold(crc ^ u16::from(byte) << 8, shifted)) % 16_384
}

/// The partition of a token: `floor(token * partitions / 2^128)`, exactly.
fn partition_of(token: u128, partitions: usize) -> usize {
    let count = partitions as u128;
    let (high, low) = (token >> 64, token & u128::from(u64::MAX));
    ((high * count + ((low * count) >> 64)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use cartwheel_core::ring::Partitions;
    use cartwheel_core::value::token::Token;

    use super::*;

    fn ring(homes: Vec<Vec<usize>>) -> Ring {
        crate::tests::ring(homes, &["a:1", "b:1", "c:1"])
    }

    #[test]
    fn the_client_finds_the_partitions_that_nodes_find() {
        for count in [1, 3, 256, 65_536] {
            let partitions = Partitions::new(count).unwrap();
            for number in 0..1_000 {
                let key = format!("key-{number}");
                let expected = partitions.of(Token::of_key(b"carts", key.as_bytes()));
                assert_eq!(partition_of(token(b"carts", key.as_bytes()), count as usize), expected.index());
            }
        }
        assert_eq!((partition_of(0, 7), partition_of(u128::MAX, 7)), (0, 6));
    }

    #[test]
    fn the_client_finds_keys_that_are_placed_by_slot_or_prefix_where_nodes_find_them() {
        use cartwheel_core::value::hlc::Hlc;
        use cartwheel_core::value::key::{Generation, Key, Placement as CorePlacement};

        let mut ring = ring((0..256).map(|_| vec![0]).collect());
        for (number, homes) in ring.homes.iter_mut().enumerate() {
            *homes = vec![number % 3];
        }
        ring.placements = [("by%20slot", Placement::Slot), ("by-prefix", Placement::Prefix(5))]
            .map(|(bucket, placement)| (bucket.to_owned(), placement))
            .into();
        let table = HomeTable::new(&ring).unwrap();
        let partitions = Partitions::new(256).unwrap();
        for (bucket, placement) in [
            ("by slot", CorePlacement::Slot),
            ("by-prefix", CorePlacement::Prefix(5)),
            ("by-name", CorePlacement::Name),
        ] {
            for name in ["a", "{tag}b", "x{tag}", "{}b", "{b", "a}{b}", "{{a}}"] {
                for number in 0..100 {
                    let name = format!("{name}{number}{name}");
                    let generation = Generation { since: Hlc::from_bits(1), placement };
                    let key = Key::of_generation(generation, bucket.into(), name.clone().into()).unwrap();
                    let expected = partitions.of(key.token()).index() % 3;
                    assert_eq!(table.homes_of(bucket.as_bytes(), name.as_bytes()), [expected], "{bucket} {name}");
                }
            }
        }
    }

    #[test]
    fn each_key_has_the_homes_of_its_partition() {
        let table = HomeTable::new(&ring(vec![vec![0, 1], vec![2, 0]])).unwrap();
        for key in [&b"a"[..], b"b", b"c", b"d"] {
            let upper = token(b"b", key) >> 127 == 1;
            assert_eq!(table.homes_of(b"b", key), if upper { [2, 0] } else { [0, 1] });
        }
    }

    #[test]
    fn rings_that_are_not_whole_are_refused() {
        let mut short = ring(vec![vec![0]]);
        short.partitions = 2;
        for bad in [ring(Vec::new()), ring(vec![vec![3]]), short] {
            assert!(matches!(HomeTable::new(&bad), Err(Error::UnexpectedResponse(_))), "{bad:?}");
        }
    }
}
