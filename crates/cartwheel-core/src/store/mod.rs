//! What a node's store holds, and the commands that the store carries out.

pub mod image;
pub mod record;
