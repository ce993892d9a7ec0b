//! The forms in which values are stored and sent: protobuf, with numbers that are never given a second meaning.
//!
//! What comes in is parsed into the protocol's own types at once, so nothing behind this module meets a clock with a zero
//! counter or an enumeration it does not know.

mod exchange;
mod message;
mod succession;
mod transfer;
mod value;

use std::fmt;

pub use message::{PROTOCOL_VERSION, decode_envelope, encode_envelope};
pub use succession::{decode_seat, encode_seat};
pub(crate) use transfer::{decode_transfer, encode_transfer};
pub(crate) use value::{decode_context, decode_record, encode_context, encode_record, encode_sibling};

/// Why bytes are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WireError {
    /// They are not protobuf of the expected form.
    Form(String),
    /// A field is missing or holds what it never should.
    Field(&'static str),
    /// A peer speaks a protocol version that this build does not know.
    Version(u32),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(why) => write!(f, "malformed bytes: {why}"),
            Self::Field(name) => write!(f, "malformed field: {name}"),
            Self::Version(version) => {
                write!(
                    f,
                    "protocol version {version}, and this node speaks {PROTOCOL_VERSION}: finish the upgrade of the older node"
                )
            }
        }
    }
}

impl std::error::Error for WireError {}

impl From<prost::DecodeError> for WireError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Form(error.to_string())
    }
}

/// The `N` bytes of a fixed-size field.
fn fixed<const N: usize>(bytes: &[u8], name: &'static str) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::Field(name))
}

#[cfg(test)]
mod tests;
