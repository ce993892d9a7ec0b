//! The nodes of the cluster, and whether they are reachable.

use std::sync::{Mutex, PoisonError};

use cartwheel_client::{Client, DigestPage, Ring};

use super::VerifyError;

/// The number of records per request; nodes return 256 at most.
const PAGE: usize = 256;

/// All nodes, in the order of the ring's member list.
pub(super) struct Nodes(Vec<Node>);

/// One node.
pub(super) struct Node {
    pub(super) name: String,
    client: Client,
    /// The reason why the node is no longer asked; none while it is.
    lost: Mutex<Option<String>>,
}

impl Nodes {
    pub(super) fn of(ring: &Ring) -> Result<Self, VerifyError> {
        let node = |member: &cartwheel_client::Member| {
            let client = Client::new([format!("http://{}", member.http)])?;
            Ok(Node { name: member.name.clone(), client, lost: Mutex::new(None) })
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

    /// The nodes that are no longer asked, and the reasons.
    pub(super) fn lost(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().filter_map(|node| Some((node.name.as_str(), node.why_lost()?)))
    }
}

impl Node {
    fn why_lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a page of the records on the node's disk; none if the node does not answer. After one failure the node is not asked again,
    /// so that further requests do not wait for the timeout.
    pub(super) async fn page(&self, partition: u32, from: Option<&str>) -> Option<DigestPage> {
        self.ask(partition, from, PAGE).await
    }

    /// Reads the record at one place: a page with one record at most.
    pub(super) async fn record(&self, partition: u32, place: &str) -> Option<DigestPage> {
        self.ask(partition, Some(place), 1).await
    }

    async fn ask(&self, partition: u32, from: Option<&str>, limit: usize) -> Option<DigestPage> {
        if self.why_lost().is_some() {
            return None;
        }
        match self.client.digests(partition, from, limit).await {
            Ok(page) if page.node == self.name => Some(page),
            Ok(page) => self.lose(format!("at its address, a node answers that is called {}", page.node)),
            Err(error) => self.lose(error.to_string()),
        }
    }

    /// Marks the node as unreachable, with the first reason. Returns none.
    pub(super) fn lose<T>(&self, why: String) -> Option<T> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        None
    }
}
