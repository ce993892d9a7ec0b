//! Nodes and their parts, on in-memory disks and networks.

mod background;
mod causality;
mod cluster;
mod codec;
mod epochs;
mod exchange;
mod fuzz;
mod harness;
mod listing;
mod merge;
mod newer_builds;
mod pair;
mod paper;
mod sloppy;
mod transfer;
mod updates;
