//! The forms in which values are stored and sent: protobuf, with numbers that are never given a second meaning.
//!
//! What comes in is parsed into the protocol's own types at once, so nothing behind this module meets a clock with a zero
//! counter or an enumeration it does not know.

mod anti_entropy;
pub mod context;
mod message;
mod reconfiguration;
mod record;
mod transfer;
mod value;
mod version;

use std::fmt;

pub use message::{Frame, decode_envelope, decode_envelope_as, encode_envelope, encode_envelope_as};
pub use reconfiguration::{decode_partition_state, encode_partition_state};
pub(crate) use transfer::{decode_transfer, encode_transfer};
pub(crate) use value::{decode_context, decode_record, encode_context, encode_record};
pub use version::{PRETENDS, PROTOCOL_VERSION, Protocol, Spoken};

/// Why bytes are not what they should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WireError {
    /// They are not protobuf of the expected form.
    Form(String),
    /// A field is missing or holds what it never should.
    Field(&'static str),
    /// They have a version that this build does not know.
    Version(u32),
    /// A frame has another version than was agreed on with whoever sent it.
    NotAgreed {
        /// Its version.
        said: Protocol,
        /// The version that it should have.
        agreed: Protocol,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(why) => write!(f, "malformed bytes: {why}"),
            Self::Field(name) => write!(f, "malformed field: {name}"),
            Self::Version(version) => write!(f, "version {version}, which this build does not know"),
            Self::NotAgreed { said, agreed } => {
                write!(f, "a frame of protocol version {said} from a node with which {agreed} was agreed on")
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
