//! Inspections: what each replica of a key holds, for people. Nothing is joined, counted to a quorum, or repaired.

use std::time::Duration;

use super::get::{READ, send_reads};
use super::{Next, OperationContext, OperationEvent, ReplyTo};
use crate::message::client::{HeldVersion, Inspected, InspectedReplica, ReplicaContents, Reply};
use crate::message::{ReplicaResponse, Role, Want};
use crate::value::dot::NodeId;
use crate::value::key::Key;
use crate::value::state::{Content, Sibling, State};
use crate::value::time::Instant;

/// How long an inspection waits for replicas that seem unreachable, at most.
const LATE_FOR: Duration = Duration::from_millis(250);

/// An inspection under way. A replica's values are dropped when they arrive, so that it holds one state at a time.
pub(super) struct InspectOp {
    id: u64,
    reply_to: ReplyTo,
    deadline: Instant,
    key: Key,
    replicas: Vec<InspectedReplica>,
    /// The replicas that seemed reachable when it began.
    reachable: Vec<NodeId>,
    begun: Instant,
}

impl InspectOp {
    pub(super) fn new(cx: &OperationContext<'_>, id: u64, reply_to: ReplyTo, deadline: Instant, key: Key) -> Self {
        let homes: Vec<NodeId> = cx.homes(&key).all();
        let n = usize::from(cx.view.settings(key.bucket()).n);
        // Writes go to the next healthy nodes on the walk while homes are away: to no more than n of them.
        let stand_ins: Vec<NodeId> = cx.no_homes(&key).filter(|node| !homes.contains(node)).take(n).collect();
        let roles = homes.into_iter().map(|node| (node, Role::Home));
        let roles = roles.chain(stand_ins.into_iter().map(|node| (node, Role::StandIn)));
        let silent = |(node, role)| InspectedReplica { node, role, contents: ReplicaContents::Silent };
        let replicas: Vec<InspectedReplica> = roles.map(silent).collect();
        let reachable = replicas.iter().map(|replica| replica.node).filter(|&node| cx.is_reachable(node)).collect();
        Self { id, reply_to, deadline, key, replicas, reachable, begun: cx.now.instant }
    }

    pub(super) fn on_event(&mut self, cx: &mut OperationContext<'_>, event: OperationEvent) -> Next {
        match event {
            OperationEvent::Begin => {
                let reads = self.replicas.iter().map(|replica| (replica.node, replica.role, Want::State)).collect();
                send_reads(cx, self.id, &self.key, reads);
            }
            OperationEvent::Response(from, READ, _, response) => self.heard(from, response),
            OperationEvent::Response(..)
            | OperationEvent::Moved
            | OperationEvent::Timer
            | OperationEvent::Minted(_)
            | OperationEvent::Forwarded(..) => {}
        }
        let late_at = (self.begun + LATE_FOR).min(self.deadline);
        let is_over = if cx.now.instant >= late_at { !self.awaits_reachable() } else { !self.awaits_any() };
        if is_over || cx.now.instant >= self.deadline {
            let inspected = Inspected { replicas: std::mem::take(&mut self.replicas) };
            cx.out.calls.replies.push((self.reply_to, Ok(Reply::Inspected(inspected))));
            return Next::End;
        }
        Next::Until(if cx.now.instant < late_at { late_at } else { self.deadline })
    }

    fn heard(&mut self, from: NodeId, response: ReplicaResponse) {
        let Some(replica) = self.replicas.iter_mut().find(|replica| replica.node == from) else { return };
        match response {
            ReplicaResponse::State { state, loss, .. } => replica.contents = contents(&state, loss.is_some()),
            ReplicaResponse::Failed(failure) => replica.contents = ReplicaContents::Failed(failure),
            ReplicaResponse::Digest { .. } | ReplicaResponse::Stored | ReplicaResponse::Holds { .. } => {}
        }
    }

    fn awaits_any(&self) -> bool {
        self.replicas.iter().any(is_silent)
    }

    fn awaits_reachable(&self) -> bool {
        self.replicas.iter().any(|replica| is_silent(replica) && self.reachable.contains(&replica.node))
    }
}

fn is_silent(replica: &InspectedReplica) -> bool {
    replica.contents == ReplicaContents::Silent
}

fn contents(state: &State, is_recovering: bool) -> ReplicaContents {
    let version = |sibling: &Sibling| HeldVersion {
        dot: sibling.dot,
        hlc: sibling.hlc,
        bytes: match &sibling.content {
            Content::Value { bytes, .. } => Some(bytes.len() as u64),
            Content::Tombstone => None,
        },
        expires: sibling.expires,
    };
    ReplicaContents::Held {
        clock: state.clock().clone(),
        versions: state.siblings().map(version).collect(),
        digest: state.digest(),
        is_recovering,
    }
}
