//! A deterministic simulator of Cartwheel. It runs clusters of the real core over simulated networks, disks and clocks, and an oracle checks every
//! response that clients get.
//!
//! A run is a function of its seed: [`run::run`]. A phase of faults is followed by a phase of healing, in which the cluster must converge.
//! [`placement`] is a simulation of another kind: it compares the paper's strategies of data placement, without messages or faults.
//!
//! | module | holds |
//! | --- | --- |
//! | [`run`], [`options`], [`rng`] | a run from begin to end, its options and its random streams, all drawn from the seed |
//! | [`world`], [`machine`], [`network`], [`disk`], [`clock`], [`cluster`] | the simulated world |
//! | [`client`], [`workload`], [`history`] | the clients, their requests, and the record of all responses |
//! | [`administrator`], [`topology`], [`faults`] | changes of settings, changes of members, and faults |
//! | [`emptied`] | a bucket that is emptied now and then, with clients of its own |
//! | [`oracle`], [`linear`], [`failure`] | the checks, the search for linear orders, and the result of a failed check |
//! | [`trace`], [`show`], [`report`] | the trace of a run, its text, and the report on a failed seed |
//! | [`transcript`] | small scripted scenarios, as text that can be reviewed |
//! | [`scale`] | a large cluster without data: the cost of gossip |
//! | [`placement`] | the paper's figures 6 and 8 |
#![forbid(unsafe_code)]

pub mod administrator;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod emptied;
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
