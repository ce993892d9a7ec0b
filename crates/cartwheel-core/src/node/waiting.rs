//! Requests that wait until a loss that they report is durable.

use crate::message::anti_entropy::Question;
use crate::message::{ReplicaRequest, RequestId};
use crate::replica::Caller;
use crate::value::dot::NodeId;

/// How many requests may wait. More are dropped, and their senders repeat them.
const WAITING_MAX: usize = 1_024;

/// A request that waits.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// A request to the replica.
    Request(Caller, ReplicaRequest),
    /// A question to anti-entropy.
    Compare(NodeId, RequestId, Question),
}

/// The requests that wait, each with the version of the loss book in which its loss is ([`crate::store::loss_book`]).
#[derive(Debug, Default)]
pub struct WaitingRequests(Vec<(u64, Waiting)>);

impl WaitingRequests {
    /// Keeps a request until this version of the book is durable.
    pub fn push(&mut self, version: u64, waiting: Waiting) {
        if self.0.len() < WAITING_MAX {
            self.0.push((version, waiting));
        }
    }

    /// Takes out the requests that waited for `version` or an earlier one.
    pub fn ready(&mut self, version: u64) -> Vec<Waiting> {
        self.0.extract_if(.., |(of, _)| *of <= version).map(|(_, waiting)| waiting).collect()
    }
}
