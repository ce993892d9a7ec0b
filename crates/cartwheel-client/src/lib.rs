//! A client of Cartwheel.
//!
//! ```no_run
//! # async fn example() -> Result<(), cartwheel_client::Error> {
//! use cartwheel_client::Client;
//!
//! let client = Client::new(["http://127.0.0.1:8081", "http://127.0.0.1:8082"])?;
//! client.put("greetings", "world", "hello", None).await?;
//! let siblings = client.get("greetings", "world").await?;
//! assert_eq!(siblings.values[0].bytes, "hello");
//!
//! // Read, merge whatever concurrent writers left, and write the result in their place.
//! client.update("greetings", "world", |siblings| [b"hello from ".as_slice(), &siblings.values[0].bytes].concat()).await?;
//! # Ok(())
//! # }
//! ```

mod attempt;
mod buckets;
mod client;
mod cluster;
mod context;
mod digests;
mod error;
mod http;
mod members;
mod options;
mod retry;
mod siblings;

pub use attempt::{Attempt, Outcome};
pub use buckets::{Bucket, BucketChange, BucketSettings, Buckets};
pub use client::{Client, Updated, Written};
pub use cluster::{
    Backlog, ClusterStatus, EpochStatus, Hints, Liveness, LivenessStatus, Location, Member, MemberState, MemberStatus,
    ProtocolStatus, Replica, ReplicaProof, Replicas, Replication, Ring, Spoken,
};
pub use context::{Acks, BadContext, Context};
pub use digests::{DigestPage, HeldRecord, Problem};
pub use error::{BadEndpoint, Cause, Error};
pub use http::{kv_path, parse_endpoint};
pub use members::{Balance, Capped, Leaves, MemberChange, MembersPlan, Move, Moves, NodeShare, PlannedMove};
pub use options::{Consistency, Options};
pub use siblings::{Siblings, Value};
