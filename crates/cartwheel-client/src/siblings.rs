use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use crate::{Acks, Context, Error};

/// A key as a get found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Siblings {
    /// The live values: none where nothing is stored, several where writers did not know of each other.
    pub values: Vec<Value>,
    /// Whether a delete stands beside the values, unmerged like them, or alone.
    pub deleted: bool,
    /// What has been shown; none if nothing was ever written. Give it to the write that merges the values.
    pub context: Option<Context>,
    /// What the answer stands on.
    pub acks: Acks,
}

/// One live value of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// The value.
    pub bytes: Bytes,
    /// Its media type, as its writer gave it.
    pub content_type: String,
    /// How it is encoded, as its writer said (`gzip`); empty: not at all. The client neither encodes nor decodes.
    pub content_encoding: String,
}

impl Value {
    /// A value of this media type, which is not encoded.
    pub fn new(bytes: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        Self { bytes: bytes.into(), content_type: content_type.into(), content_encoding: String::new() }
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
}

/// The values of a JSON form, and whether a delete is among them.
pub(crate) fn parse(body: &[u8]) -> Result<(Vec<Value>, bool), Error> {
    let strange = |why: String| Error::Strange(format!("a list of siblings that cannot be read ({why})"));
    let form: Form = serde_json::from_slice(body).map_err(|error| strange(error.to_string()))?;
    let mut values = Vec::with_capacity(form.siblings.len());
    let mut deleted = false;
    for sibling in form.siblings {
        match sibling.value {
            None => deleted = true,
            Some(value) => {
                let bytes = STANDARD.decode(value).map_err(|error| strange(error.to_string()))?.into();
                let content_type = sibling.content_type.unwrap_or_default();
                values.push(Value {
                    bytes,
                    content_type,
                    content_encoding: sibling.content_encoding.unwrap_or_default(),
                });
            }
        }
    }
    Ok((values, deleted))
}
