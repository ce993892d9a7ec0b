//! The operating system: clocks, random bytes, thread priorities.

pub mod clock;
pub(crate) mod core_dumps;
pub(crate) mod priority;
pub(crate) mod random;
