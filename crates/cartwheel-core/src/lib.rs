//! The protocol of Cartwheel, Amazon's Dynamo (DeCandia et al., SOSP 2007), as a state machine without input or output.
//!
//! A node takes in one input at a time and says what is to be done: [`node::Node::step`]. Nothing here reads a clock, draws
//! a number that its caller did not seed, opens a file or a socket, or waits. So the code that serves production runs in the
//! simulator too, and one seed replays one run.
//!
//! The rooms, ground floor first:
//!
//! 1. values: [`token`], [`dot`], [`clock`], [`state`], [`notes`], [`digest`], [`context`], [`write_id`], [`hlc`], [`key`], [`record`];
//! 2. the ring and what nodes say: [`ring`], [`membership`], [`quorum`], [`message`], [`request`], [`wire`];
//! 3. [`liveness`]: what a node thinks of every other; [`merkle`]: sums by which replicas are compared;
//! 4. the roles: [`coordinator`] (gets and puts), [`replica`] (records and dots), [`hint`] and [`handoff`] (what is kept for others),
//!    [`exchange`] (replicas made equal), [`admission`] (how much of that at once), [`clock_guard`] (whose clock is off);
//! 5. [`node`]: owns the rest and passes inputs on; [`effects`]: what goes in and comes out; [`image`]: a model of its store;
//!    [`sizes`]: how much it holds;
//! 6. [`control`]: what a node has once, however many shards it has: the history of changes, and how it spreads.
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
pub mod reconfiguration;
pub mod replica;
pub mod ring;
pub mod store;
pub mod value;
pub mod wire;
