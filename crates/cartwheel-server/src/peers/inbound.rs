//! Routes messages from peers to the shards and the control.

use cartwheel_core::message::Envelope;

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
