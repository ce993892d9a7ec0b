//! Who in a node takes what its peers say.

use cartwheel_core::message::Envelope;

use crate::control_queue::ControlHandle;
use crate::shard::{Shards, Stopped};

/// The shards and the control of a node, as its peers reach them.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// For what is said about keys.
    pub shards: Shards,
    /// For what is said about the cluster.
    pub control: ControlHandle,
}

impl Inbound {
    /// Hands a message of so many bytes to whom it is for, and waits while its queue is full.
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
