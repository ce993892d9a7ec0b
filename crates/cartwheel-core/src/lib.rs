//! The protocol of Cartwheel, Amazon's Dynamo (DeCandia et al., SOSP 2007), as a state machine without input or output.
//!
//! A node takes one input at a time and returns what is to be done: [`node::Node::step`]. The core never reads a clock, draws an unseeded random
//! number, opens a file or a socket, or waits. So production code runs unchanged in the simulator, and one seed replays one run.
//!
//! The modules, from the lowest up. No file uses a module above its own (a test checks it):
//!
//! 1. [`mutation`]: protocol rules that a test can break on purpose;
//! 2. [`value`]: keys, versions, siblings and time;
//! 3. [`ring`]: partitions, placement and quorums;
//! 4. [`cluster`]: members, buckets, configurations and liveness, as plain data;
//! 5. [`admission`]: how much background work may begin;
//! 6. [`message`]: messages of clients and nodes;
//! 7. [`store`]: records, and the commands to a node's store;
//! 8. [`wire`]: the encoded forms of everything that is stored or sent;
//! 9. [`event`], [`outbox`] and [`config`]: what a node reports, what its parts want done, and its settings at start;
//! 10. [`replica`]: reads and writes of records, one turn at a time for each key;
//! 11. [`anti_entropy`]: Merkle trees and the comparison of replicas;
//! 12. [`coordinator`]: gets, puts, and hinted handoff;
//! 13. [`listing`]: lists of a bucket's keys, and the sizes of buckets;
//! 14. [`reconfiguration`]: changes of a partition's homes, and the transfer of its data;
//! 15. [`control`]: the state machine that a node has once, however many shards it has;
//! 16. [`node`]: the state machine that owns the rest.
#![forbid(unsafe_code)]

pub mod admission;
pub mod anti_entropy;
pub mod cluster;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod event;
pub mod listing;
pub mod message;
pub mod mutation;
pub mod node;
pub mod outbox;
pub mod reconfiguration;
pub mod replica;
pub mod ring;
pub mod store;
pub mod value;
pub mod wire;
