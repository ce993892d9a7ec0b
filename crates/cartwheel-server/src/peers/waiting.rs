//! Nodes that wait to join.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_core::cluster::membership::Member;
use tokio::sync::watch;

use crate::control_queue::ControlHandle;
use crate::data_dir::ClusterSecret;

/// How long a node counts as waiting after a request. It sends one every second.
const WAITS_FOR: Duration = Duration::from_secs(10);
/// How many nodes may wait. There is a bound because any program that reaches the port can send requests.
const WAITING_MAX: usize = 1_000;

/// The waiting nodes. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<BTreeMap<String, (Member, Instant)>>>);

impl Waiting {
    /// All of them, by name.
    pub fn all(&self) -> Vec<Member> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (_, last_request)| last_request.elapsed() < WAITS_FOR);
        waiting.values().map(|(member, _)| member.clone()).collect()
    }

    pub(super) fn note(&self, member: Member) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (_, last_request)| last_request.elapsed() < WAITS_FOR);
        if waiting.len() < WAITING_MAX || waiting.contains_key(&member.name) {
            waiting.insert(member.name.clone(), (member, Instant::now()));
        }
    }
}

/// The response to a joining node: all that it needs to become a member.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// The secret that the nodes of the cluster share.
    pub secret: ClusterSecret,
    /// All changes that this node knows, encoded.
    pub history: watch::Receiver<Bytes>,
    /// The waiting nodes.
    pub waiting: Waiting,
    /// The control, which adds nodes that join without an administrator.
    pub control: ControlHandle,
}
