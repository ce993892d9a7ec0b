//! Where keys are, computed from the ring as the nodes do.

use md5::{Digest as _, Md5};

use crate::{Error, Ring};

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
        Ok(Self { homes: ring.homes.clone() })
    }

    /// The homes of a key as indexes into [`Ring::members`], in the order in which coordinators contact them. Empty if none is left.
    pub fn homes_of(&self, bucket: &[u8], key: &[u8]) -> &[usize] {
        &self.homes[partition_of(token(bucket, key), self.homes.len())]
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
