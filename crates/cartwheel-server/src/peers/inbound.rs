//! Routes messages from peers to the shards and the control.

use cartwheel_core::message::Envelope;
use tokio::runtime::Handle;

use crate::control_queue::ControlHandle;
use crate::shard::{Shards, Stopped};

/// The shards and the control of a node, as recipients of messages from peers.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Recipients of messages about keys.
    pub shards: Shards,
    /// Recipient of messages about the cluster.
    pub control: ControlHandle,
}

impl Inbound {
    /// Spawns the tasks for a connection from a peer's shard, or from its control: on the thread of the shard with the same index if there is
    /// one, so that messages between nodes with the same number of shards need no other thread; for the control, on the calling one.
    pub(super) fn spawner(&self, shard: Option<u32>) -> Handle {
        shard.map_or_else(Handle::current, |shard| self.shards.spawner(shard).clone())
    }

    /// Hands a message of `bytes` bytes to its recipient, and waits while the recipient's queue is full.
    ///
    /// # Errors
    /// If the node is stopping.
    pub(super) async fn deliver(&self, message: Envelope, bytes: usize) -> Result<(), Stopped> {
        if let Some(notice) = self.shards.deliver(message, bytes).await? {
            self.control.deliver(notice);
        }
        Ok(())
    }
}
