//! Forged and corrupt input: bytes and messages that no correct node sends or stores. Whatever they are, no decoder and
//! no node panics, takes unbounded memory, or loses an acknowledged write.
//!
//! This uses proptest, not a coverage-guided fuzzer: it runs on stable Rust, failures shrink to readable cases, and the
//! number of cases decides how long a run takes. To reach what coverage would find, most inputs are valid ones with a
//! few bytes changed, and generated values favour edges (zero, the greatest number, ids of real nodes). PROPTEST_CASES
//! makes a run longer.

mod arbitrary;
mod control;
mod decoders;
mod disks;
mod exchange;
mod faulty_member;
mod listing;
mod net;
mod notices;
mod reconfiguration;
