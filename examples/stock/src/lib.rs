//! A stock from which two shops sell concurrently, without coordination. [`counts`] is the stock as a value that can be merged, [`orders`]
//! are the shops.

pub mod counts;
pub mod orders;
