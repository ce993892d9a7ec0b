//! Ids of client writes, by which a repeated write is recognized.

use std::fmt;

use crate::value::key::Key;
use crate::value::state::Content;

/// The id of one client write, the same whichever node coordinates it and however often it is tried.
///
/// It is a hash of everything that defines the write, so a client that reuses an idempotency key for different content makes a new write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId([u8; 16]);

impl WriteId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id as bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The id of writing `content` to `key` with the sealed `context`, under an idempotency key chosen by the client or by the node that it
    /// first reached.
    pub fn of_write(idempotency_key: &[u8], key: &Key, content: &Content, context: Option<&[u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(idempotency_key);
        part(key.bucket());
        part(key.name());
        match content {
            Content::Value { bytes, content_type, content_encoding } => {
                if content_encoding.is_empty() {
                    part(b"value");
                } else {
                    part(b"encoded value");
                    part(content_encoding.as_bytes());
                }
                part(content_type.as_bytes());
                part(bytes);
            }
            Content::Tombstone => part(b"tombstone"),
        }
        match context {
            Some(context) => part(context),
            None => part(b"blind"),
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
