//! A stock from which two shops sell at the same time, without asking each other.

pub mod counts;
pub mod orders;
