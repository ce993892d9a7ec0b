//! What a node's store holds, and the commands that the store carries out.

pub mod command;
pub mod gc_due;
pub mod image;
pub mod loss_book;
pub mod record;
pub mod saved_transfer;
pub mod share;
