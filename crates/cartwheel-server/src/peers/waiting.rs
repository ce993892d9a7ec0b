//! Nodes that are no members and have asked to be let in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cartwheel_core::cluster::membership::Member;
use tokio::sync::watch;

use crate::control_queue::ControlHandle;
use crate::data_dir::ClusterSecret;

/// How long a node is known to wait after it has said so. It says so every second.
const WAITS_FOR: Duration = Duration::from_secs(10);
/// How many may wait: whoever reaches the port may say that he does.
const WAITING_MAX: usize = 1_000;

/// Those who wait. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<BTreeMap<String, (Member, Instant)>>>);

impl Waiting {
    /// All of them, by name.
    pub fn all(&self) -> Vec<Member> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (_, said)| said.elapsed() < WAITS_FOR);
        waiting.values().map(|(member, _)| member.clone()).collect()
    }

    pub(super) fn note(&self, member: Member) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (_, said)| said.elapsed() < WAITS_FOR);
        if waiting.len() < WAITING_MAX || waiting.contains_key(&member.name) {
            waiting.insert(member.name.clone(), (member, Instant::now()));
        }
    }
}

/// What a node that wants to be let in is told: enough to be a member of the cluster once it is.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// What the nodes of the cluster share.
    pub secret: ClusterSecret,
    /// All changes that this node knows, encoded.
    pub history: watch::Receiver<Bytes>,
    /// Who waits.
    pub waiting: Waiting,
    /// Who lets in those who need no administrator.
    pub control: ControlHandle,
}
