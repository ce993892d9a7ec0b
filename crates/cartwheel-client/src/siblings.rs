use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use crate::{Acks, Context, Error};

/// The values of a key.
///
/// Where several clients wrote without seeing each other's writes, a key has several values. None of them is lost: the application merges them and
/// writes the result with [`context`](Self::context), which replaces them all ([`Client::update`](crate::Client::update) does that).
///
/// ```no_run
/// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
/// let read = client.get("carts", "alice").await?;
/// match read.values.as_slice() {
///     [] => println!("no cart"),
///     [one] => println!("a cart of {} bytes", one.bytes.len()),
///     several => {
///         let merged = several.iter().map(|value| value.bytes.as_ref()).collect::<Vec<_>>().concat();
///         client.put("carts", "alice", merged, read.context.as_ref()).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Siblings {
    /// The live values: none if nothing is stored, several if concurrent writes are not merged yet.
    pub values: Vec<Value>,
    /// Whether the key was deleted: alone, or concurrently with `values`.
    pub deleted: bool,
    /// The version that this read has seen; `None` if the key was never written. Pass it to the write that replaces `values`.
    pub context: Option<Context>,
    /// The replicas that answered.
    pub acks: Acks,
}

/// One value of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// The bytes, as their writer gave them.
    pub bytes: Bytes,
    /// The media type that its writer gave.
    pub content_type: String,
    /// The encoding that its writer gave, such as `gzip`; empty if there is none. The client neither encodes nor decodes values.
    pub content_encoding: String,
    /// How long until it expires, if it does: from the write, or, if the value was read, from then. It counts in whole seconds, rounded up.
    pub ttl: Option<Duration>,
}

impl Value {
    /// A value of this media type, without an encoding.
    pub fn new(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self { bytes: bytes.into(), content_type: content_type.into(), content_encoding: String::new(), ttl: None }
    }

    /// The same value, which expires after `ttl`, rounded up to whole seconds.
    #[must_use]
    pub fn expiring_after(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }
}

#[derive(Deserialize)]
struct Form {
    siblings: Vec<SiblingForm>,
}

#[derive(Deserialize)]
struct SiblingForm {
    value: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    ttl: Option<u64>,
}

/// Reads the values of a JSON form, and whether a delete is among them.
pub(crate) fn parse(body: &[u8]) -> Result<(Vec<Value>, bool), Error> {
    let unreadable = |why: String| Error::UnexpectedResponse(format!("an unreadable list of siblings ({why})"));
    let form: Form = serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
    let mut values = Vec::with_capacity(form.siblings.len());
    let mut deleted = false;
    for sibling in form.siblings {
        match sibling.value {
            None => deleted = true,
            Some(value) => {
                let bytes = STANDARD.decode(value).map_err(|error| unreadable(error.to_string()))?.into();
                let content_type = sibling.content_type.unwrap_or_default();
                values.push(Value {
                    bytes,
                    content_type,
                    content_encoding: sibling.content_encoding.unwrap_or_default(),
                    ttl: sibling.ttl.map(Duration::from_secs),
                });
            }
        }
    }
    Ok((values, deleted))
}
