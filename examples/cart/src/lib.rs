//! Real purchases, replayed as shopping carts by writers that do not wait for each other, and a proof that none is lost.

pub mod cart;
pub mod cluster;
pub mod progress;
pub mod proof;
pub mod purchases;
pub mod replay;
pub mod story;
