//! An async Rust client of Cartwheel, over its HTTP API.
//!
//! [`Client`] is the entry point: it reads and writes keys at the nodes that hold them, fails over between nodes and repeats failed requests.
//!
//! The cluster never overwrites a concurrent write: a read returns all values that no writer has merged, as [`Siblings`], and a [`Context`] for the
//! write that merges them.
//!
//! ```no_run
//! # async fn example() -> Result<(), cartwheel_client::Error> {
//! use cartwheel_client::Client;
//!
//! let client = Client::new(["http://127.0.0.1:8081", "http://127.0.0.1:8082"])?;
//! client.put("greetings", "world", "hello", None).await?;
//! let read = client.get("greetings", "world").await?;
//! assert_eq!(read.values[0].bytes, "hello");
//!
//! // Read, merge the values of concurrent writers, and write the result in their place.
//! client.update("greetings", "world", |read| match read.values.iter().map(|value| &value.bytes).max() {
//!     Some(last) => [b"hello from ".as_slice(), last].concat(),
//!     None => b"hello".to_vec(),
//! }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! All items are exported here; the modules are private.
//!
//! | module | contents |
//! | --- | --- |
//! | `client`, `cluster_requests` | [`Client`]: requests on keys, and requests about the cluster |
//! | `siblings`, `context`, `options` | what reads return and requests take: [`Siblings`], [`Value`], [`Context`], [`Options`] |
//! | `buckets`, `listing` | the settings of buckets, and lists of their keys |
//! | `cluster`, `members`, `digests` | the cluster's state, changes of its members, and the records on one node's disk |
//! | `maintenance`, `staleness` | nodes before they are stopped, and how soon reads see a write |
//! | `backup` | copies of partitions, and their restore |
//! | `route`, `router`, `health` | where keys are ([`HomeTable`]), and which nodes a request goes to |
//! | `call`, `retry`, `hedge` | a request and its attempts, when one is repeated, and when two run side by side |
//! | `attempt`, `http` | one attempt at one node, and how it goes through HTTP |
//! | `tls` | the authorities that a client trusts: [`Tls`] |
//! | `credentials` | what proves which user a client is: [`Credentials`] |
//! | `users` | users, their roles and access tokens: [`User`] |
//! | `error` | [`Error`] and its [`Cause`] |

mod attempt;
mod backup;
mod buckets;
mod call;
mod client;
mod cluster;
mod cluster_requests;
mod context;
mod credentials;
mod digests;
mod error;
mod health;
mod hedge;
mod http;
mod listing;
mod maintenance;
mod members;
mod options;
mod retry;
mod route;
mod router;
mod siblings;
mod staleness;
#[cfg(test)]
mod tests;
mod tls;
mod users;

pub use attempt::{Attempt, Outcome};
pub use backup::{PartitionSums, RangeSum, RecordsPage};
pub use buckets::{Bucket, BucketChange, BucketSettings, Buckets, Placement};
pub use client::{Client, Updated, Written};
pub use cluster::{
    Backlog, ClusterStatus, DiskSpace, EpochStatus, Hints, Liveness, LivenessStatus, Location, Member, MemberState,
    MemberStatus, ProtocolStatus, ProtocolVersions, Replica, ReplicaProof, Replicas, Replication, Ring,
};
pub use context::{Acks, BadContext, Context};
pub use credentials::Credentials;
pub use digests::{DigestPage, DigestProblem, HeldRecord};
pub use error::{BadEndpoint, Cause, Error};
pub use http::{decode_key, encode_key, kv_path, parse_endpoint};
pub use listing::{KeyPage, KeysQuery};
pub use maintenance::{Drain, OwedHints};
pub use members::{
    Balance, CappedWeight, ForceRecovery, MemberChange, MembersPlan, NodeShare, PlannedTransfer, RetiredReplica,
    Transfer, Transfers,
};
pub use options::{Consistency, Options};
pub use route::HomeTable;
pub use siblings::{Siblings, Value};
pub use staleness::{Freshness, MeasuredPeer, MeasuredTimes, Staleness, StalenessPrediction};
pub use tls::{Tls, TlsError};
pub use users::{AccessToken, NewAccessToken, User, UserChange, Users, Whoami};
