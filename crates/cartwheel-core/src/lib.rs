//! The Dynamo protocol as a state machine without input or output.
#![forbid(unsafe_code)]

pub mod clock;
pub mod context;
pub mod dot;
pub mod hlc;
pub mod key;
pub mod membership;
pub mod message;
pub mod node;
pub mod quorum;
pub mod record;
pub mod request;
pub mod ring;
pub mod state;
pub mod time;
pub mod token;
pub mod wire;
pub mod write_id;
