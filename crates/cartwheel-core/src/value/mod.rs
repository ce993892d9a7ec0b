//! Values and what identifies them: keys, versions, siblings and time.

pub mod clock;
pub mod cluster_id;
pub mod context;
pub mod digest;
pub mod dot;
pub mod epoch;
pub mod hash_slot;
pub mod hlc;
pub mod key;
mod mutated;
pub mod notes;
pub mod position;
pub mod state;
pub mod time;
pub mod token;
pub mod write_id;
