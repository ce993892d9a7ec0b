//! The homes of keys, as ring-aware clients know them.

use std::sync::Arc;

use cartwheel_client::Client;
use cartwheel_core::ring::Partitions;
use cartwheel_core::value::token::Token;

use super::BenchError;
use super::connection::Endpoint;
use super::servers;

/// The homes of each partition, as indexes of endpoints.
#[derive(Debug)]
pub(super) struct Route {
    partitions: Partitions,
    homes: Vec<Vec<usize>>,
}

impl Route {
    /// Reads the ring. Returns the endpoints of all members too, to which the route refers.
    ///
    /// # Errors
    /// If the ring cannot be read, or a partition has no home.
    pub(super) async fn fetch(client: &Client) -> Result<(Self, Arc<[Endpoint]>), BenchError> {
        let ring = client.ring().await?;
        let endpoints: Arc<[Endpoint]> =
            ring.members.iter().map(|member| servers::endpoint(&member.http)).collect::<Result<_, _>>()?;
        let is_whole = |homes: &&Vec<usize>| !homes.is_empty() && homes.iter().all(|&home| home < endpoints.len());
        let whole = ring.homes.iter().filter(is_whole).count();
        match Partitions::new(ring.partitions) {
            Ok(partitions) if whole == partitions.len() && ring.homes.len() == whole => {
                Ok((Self { partitions, homes: ring.homes }, endpoints))
            }
            _ => Err(BenchError::NoRing(whole)),
        }
    }

    /// One of the homes of a key, each with equal probability.
    pub(super) fn home_of(&self, bucket: &str, key: &str, random: &mut fastrand::Rng) -> usize {
        let token = Token::of_key(bucket.as_bytes(), key.as_bytes());
        let homes = &self.homes[self.partitions.of(token).index()];
        homes[random.usize(..homes.len())]
    }
}
