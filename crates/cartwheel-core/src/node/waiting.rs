//! Questions that wait until what they tell of is durable.

use crate::message::anti_entropy::Question;
use crate::message::{ReplicaRequest, RequestId};
use crate::replica::Caller;
use crate::value::dot::NodeId;

/// How many questions wait until a loss is durable. More are dropped, and asked again.
const WAITING_MAX: usize = 1_024;

/// A question that is answered once what it tells of is durable.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// To the replica.
    Ask(Caller, ReplicaRequest),
    /// To the exchange.
    Compare(NodeId, RequestId, Question),
}

/// The questions that wait until the losses that they tell of are durable ([`crate::store::loss_book`]).
#[derive(Debug, Default)]
pub struct WaitingQuestions(Vec<(u64, Waiting)>);

impl WaitingQuestions {
    /// A question waits until the book is durable in this version.
    pub fn push(&mut self, version: u64, waiting: Waiting) {
        if self.0.len() < WAITING_MAX {
            self.0.push((version, waiting));
        }
    }

    /// Those that can be answered once the book is durable up to `version`.
    pub fn ready(&mut self, version: u64) -> Vec<Waiting> {
        self.0.extract_if(.., |(of, _)| *of <= version).map(|(_, waiting)| waiting).collect()
    }
}
