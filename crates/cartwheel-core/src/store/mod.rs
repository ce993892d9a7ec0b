//! Records of a node's store, and the commands that the store executes.

pub mod command;
pub mod gc_due;
pub mod image;
pub mod key_index;
pub mod loss_book;
pub mod record;
pub mod saved_transfer;
pub mod share;
