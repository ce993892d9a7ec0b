//! The seeded simulator: clusters of the real core over simulated networks, disks and clocks, with an oracle that knows what
//! clients may be told.
//!
//! A run is a function of its seed ([`run::run`]). [`world`] is the simulated world, which does what it is told; [`run`] drives
//! it through a phase of faults and a phase of healing; [`oracle`] judges what clients were told.
//!
//! [`placement`] is another kind of simulation: it compares the paper's strategies of placing data, without messages or faults.
#![forbid(unsafe_code)]

pub mod administrator;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod failure;
pub mod faults;
pub mod history;
pub mod linear;
pub mod machine;
pub mod network;
pub mod options;
pub mod oracle;
pub mod placement;
pub mod report;
pub mod rng;
pub mod run;
pub mod scale;
pub mod show;
pub mod topology;
pub mod trace;
pub mod transcript;
pub mod workload;
pub mod world;
