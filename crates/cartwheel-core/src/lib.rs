//! The Dynamo protocol as a state machine without input or output.
#![forbid(unsafe_code)]

pub mod dot;
pub mod hlc;
pub mod membership;
pub mod quorum;
pub mod ring;
pub mod token;
