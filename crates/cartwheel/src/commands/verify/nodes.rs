//! The nodes of the cluster, and whether they are reachable.

use std::sync::{Mutex, PoisonError};

use cartwheel_client::{Client, DigestPage, Ring};

use super::VerifyError;
use crate::cli::Endpoints;

/// The number of records per request; nodes return 256 at most.
const PAGE: usize = 256;

/// All nodes, in the order of the ring's member list.
pub(super) struct Nodes(Vec<Node>);

pub(super) struct Node {
    pub(super) name: String,
    client: Client,
    /// The first failed request; none while the node is reachable.
    failure: Mutex<Option<String>>,
}

impl Nodes {
    pub(super) fn of(ring: &Ring, endpoints: &Endpoints) -> Result<Self, VerifyError> {
        let node = |member: &cartwheel_client::Member| {
            let client = endpoints.client_of([&member.http])?;
            Ok(Node { name: member.name.clone(), client, failure: Mutex::new(None) })
        };
        ring.members.iter().map(node).collect::<Result<_, VerifyError>>().map(Self)
    }

    pub(super) fn all(&self) -> &[Node] {
        &self.0
    }

    /// The index of the node with this name.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|node| node.name == name)
    }

    /// The unreachable nodes, and their first failures.
    pub(super) fn unreachable(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().filter_map(|node| Some((node.name.as_str(), node.failure()?)))
    }
}

impl Node {
    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a page of the records on the node's disk; none if the node does not answer. After one failure the node gets no more requests,
    /// which would each wait for the timeout.
    pub(super) async fn page(&self, partition: u32, from: Option<&str>) -> Option<DigestPage> {
        self.fetch(partition, from, PAGE).await
    }

    /// Reads the record with this encoded storage key: a page with one record at most.
    pub(super) async fn record(&self, partition: u32, storage_key: &str) -> Option<DigestPage> {
        self.fetch(partition, Some(storage_key), 1).await
    }

    async fn fetch(&self, partition: u32, from: Option<&str>, limit: usize) -> Option<DigestPage> {
        if self.failure().is_some() {
            return None;
        }
        match self.client.digests(partition, from, limit).await {
            Ok(page) if page.node == self.name => Some(page),
            Ok(page) => self.mark_unreachable(format!("another node answers at its address: {}", page.node)),
            Err(error) => self.mark_unreachable(error.to_string()),
        }
    }

    /// Keeps the first failure. Always returns none.
    pub(super) fn mark_unreachable<T>(&self, why: String) -> Option<T> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        None
    }
}
