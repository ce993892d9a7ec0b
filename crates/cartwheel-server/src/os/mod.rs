//! What the operating system gives: clocks, random bytes, thread priorities.

pub mod clock;
pub(crate) mod priority;
pub(crate) mod random;
