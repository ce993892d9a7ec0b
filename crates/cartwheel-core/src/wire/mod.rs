//! Encodings of everything that is stored or sent: protobuf, whose field numbers are never reused.
//!
//! Incoming bytes are parsed into the protocol's own types at once, so the rest of the code never sees a clock with a zero counter or an unknown
//! enumeration value.

mod anti_entropy;
pub mod context;
mod copies;
mod listing;
mod message;
mod reconfiguration;
mod record;
mod transfer;
mod value;
mod version;

use std::fmt;

pub use copies::{CopiedRecord, decode_copies, encode_copies};
pub use message::{Frame, decode_envelope, decode_envelope_as, encode_envelope, encode_envelope_as};
pub use reconfiguration::{decode_partition_state, encode_partition_state};
pub(crate) use transfer::{decode_transfer, encode_transfer};
pub(crate) use value::{decode_context, decode_record, encode_context, encode_record};
pub use version::{PRETENDS, PROTOCOL_VERSION, Protocol, Spoken};

/// Why bytes cannot be decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WireError {
    /// They are not protobuf of the expected type.
    Form(String),
    /// A field is missing or has an invalid value.
    Field(&'static str),
    /// Their version is unknown to this build.
    Version(u32),
    /// A frame has another version than was negotiated with its sender.
    NotAgreed {
        /// Its version.
        said: Protocol,
        /// The negotiated version.
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
                write!(f, "a frame has protocol version {said}, but {agreed} was negotiated with its sender")
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
