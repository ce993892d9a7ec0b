//! The operating system: clocks, random bytes, thread priorities.

pub mod clock;
pub(crate) mod priority;
pub(crate) mod random;
