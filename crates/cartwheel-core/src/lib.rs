//! The protocol of Cartwheel, Amazon's Dynamo (DeCandia et al., SOSP 2007), as a state machine without input or output.
//!
//! A node takes in one input at a time and says what is to be done: [`node::Node::step`]. Nothing here reads a clock, draws
//! a number that its caller did not seed, opens a file or a socket, or waits. So the code that serves production runs in the
//! simulator too, and one seed replays one run.
//!
//! The rooms, from the ground up; no file uses anything of a room above its own (`tests/rooms.rs`):
//!
//! 1. [`mutation`]: the rules that can be broken on purpose;
//! 2. [`value`]: keys, versions, siblings and time;
//! 3. [`ring`]: partitions, placement and quorums;
//! 4. [`cluster`]: members, buckets, configurations and liveness, as plain data;
//! 5. [`admission`]: how much background work may begin;
//! 6. [`message`]: what clients and nodes say;
//! 7. [`store`]: what a node keeps, and the commands to its store;
//! 8. [`wire`]: the forms of all that is stored or sent;
//! 9. [`event`] and [`config`]: what a node reports, and what it is told at its start;
//! 10. [`replica`]: records, one turn at a time for each key;
//! 11. [`anti_entropy`]: replicas made equal;
//! 12. [`coordinator`]: gets, puts, and what is kept for others;
//! 13. [`reconfiguration`]: how a partition gets other homes, and what they hold;
//! 14. [`control`]: what a node has once, however many shards it has;
//! 15. [`node`]: the state machine that owns the rest.
#![forbid(unsafe_code)]

pub mod admission;
pub mod anti_entropy;
pub mod cluster;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod event;
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
