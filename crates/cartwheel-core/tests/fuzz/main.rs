//! Bytes and messages that nobody should send or store: whatever they are, no decoder and no node panics, takes memory without
//! bound, or forgets what it acknowledged.
//!
//! proptest and not a coverage-guided fuzzer: it runs on stable Rust, a failure shrinks to something one can read, and a run is
//! as long as its number of cases. What coverage would find by itself is built in instead: most inputs are valid ones with a few
//! bytes changed, and generated values lie on the edges (zero, the greatest number, ids of real nodes). PROPTEST_CASES makes a
//! run longer.

mod arbitrary;
mod control;
mod decoders;
mod disks;
mod exchange;
mod mad_member;
mod net;
mod notices;
mod reconfiguration;
