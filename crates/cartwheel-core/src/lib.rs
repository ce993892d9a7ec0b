//! The Dynamo protocol as a state machine without input or output.
#![forbid(unsafe_code)]

pub mod dot;
pub mod hlc;
pub mod ring;
pub mod token;
