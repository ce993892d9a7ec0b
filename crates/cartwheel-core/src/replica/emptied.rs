//! Records of buckets that were emptied, and the index of the keys of all others.

use super::{Caller, Replica};
use crate::message::{Confirm, Failure, ReplicaRequest, ReplicaResponse, Requester, Want};
use crate::mutation::Mutation;
use crate::store::record::Record;
use crate::value::key::Key;
use crate::value::state::{Content, State};
use crate::wire::Protocol;

impl Replica {
    /// The response to a request for a key whose bucket was emptied since. The key is absent. What a coordinator wants stored is refused, so that
    /// no write is acknowledged that is gone. Anti-entropy and transfers are told that all is well, because nothing needs to be made equal.
    pub(super) fn of_emptied(&self, caller: Caller, request: &ReplicaRequest) -> ReplicaResponse {
        let nothing = State::default();
        let (Caller::Local(request_id) | Caller::Peer(_, request_id, _)) = caller;
        match request {
            ReplicaRequest::Read { want: Want::Digest, .. } => {
                ReplicaResponse::Digest { digest: nothing.digest(), loss: None }
            }
            ReplicaRequest::Read { want: Want::State, .. } | ReplicaRequest::Recover { .. } => {
                ReplicaResponse::State { state: nothing, epoch: self.epoch, loss: None }
            }
            ReplicaRequest::Merge { .. } if request_id.requester == Requester::Coordinator => {
                ReplicaResponse::Failed(Failure::Superseded)
            }
            ReplicaRequest::Merge { confirm: Confirm::Stored, .. } => ReplicaResponse::Stored,
            ReplicaRequest::Merge { confirm: Confirm::Exactly, .. } => {
                ReplicaResponse::Holds { digest: nothing.digest(), state: Some(nothing), loss: None }
            }
        }
    }

    /// Whether the index has an entry for a key with this record.
    pub fn is_to_be_listed(&self, key: &Key, record: &Record) -> bool {
        let is_live = record.state.siblings().any(|held| matches!(held.content, Content::Value { .. }));
        let form = self.held.view().form(key.bucket());
        // Whether a generation that this node has not heard of yet is indexed, it cannot know.
        let is_indexed = form.is_indexed || form.generation != key.generation();
        let keeps_index = self.all_speak >= Protocol::KEY_INDEX && is_indexed;
        is_live && keeps_index && !self.broken.is(Mutation::KeysNotListed)
    }

    /// Whether the bucket of a key was emptied, so that its record is to be removed.
    pub fn is_superseded(&self, key: &Key) -> bool {
        self.held.view().is_superseded(key) && !self.broken.is(Mutation::EmptiedBucketsKept)
    }

    /// The version of the protocol that all members support.
    pub const fn all_speak(&self) -> Protocol {
        self.all_speak
    }
}
