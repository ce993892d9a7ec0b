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
//!    [`exchange`] (replicas made equal), [`admission`] (how much of that at once), [`drift`] (whose clock is off);
//! 5. [`node`]: owns the rest and passes inputs on; [`effects`]: what goes in and comes out; [`image`]: a model of its store;
//!    [`sizes`]: how much it holds;
//! 6. [`control`]: what a node has once, however many shards it has: the history of changes, and how it spreads.
#![forbid(unsafe_code)]

pub mod admission;
pub mod clock;
pub mod configuration;
pub mod context;
pub mod control;
pub mod coordinator;
pub mod counts;
pub mod digest;
pub mod dot;
pub mod drift;
pub mod effects;
pub mod epoch;
pub mod exchange;
pub mod handoff;
pub mod hint;
pub mod hlc;
pub mod holdings;
pub mod image;
pub mod key;
pub mod liveness;
pub mod losses;
pub mod membership;
pub mod merkle;
pub mod message;
pub mod mutation;
pub mod node;
pub mod notes;
pub mod quorum;
pub mod reclaim;
pub mod reclaimer;
pub mod record;
pub mod replica;
pub mod request;
pub mod ring;
pub mod sizes;
pub mod state;
pub mod succession;
pub mod time;
pub mod token;
pub mod transfer;
pub mod wire;
pub mod write_id;
