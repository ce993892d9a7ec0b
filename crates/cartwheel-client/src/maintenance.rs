//! What operators ask of single nodes: to drain, and what is in a support bundle.

use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::{Client, Error, Value};

const DRAIN_PATH: &str = "/v1/cluster/drain";

/// Whether a node drains, and what it still keeps for others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drain {
    /// The name of the node that answered.
    pub node: String,
    /// Whether it drains: it serves, but is chosen last. A restart ends it.
    pub draining: bool,
    /// Since when (RFC 3339).
    pub since: Option<String>,
    /// Whether it keeps no hints for members that can be reached.
    pub handed_over: bool,
    /// The hints that it keeps, by member.
    pub hints: Vec<OwedHints>,
}

/// The hints that a node keeps for one member.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwedHints {
    /// The member's name.
    pub node: String,
    /// The number of records.
    pub records: u64,
    /// Their size.
    pub bytes: u64,
    /// Whether the member is down: the hints stay on the disk until it is back.
    pub down: bool,
}

impl Client {
    /// Whether the answering node drains. Use a client with one endpoint.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node could not answer.
    pub async fn drain(&self) -> Result<Drain, Error> {
        self.fetch(DRAIN_PATH.to_owned()).await
    }

    /// Drains the answering node, or ends that: it goes on to serve, but clients and peers choose other nodes, so that it can be stopped. Use a client
    /// with one endpoint.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the node could not answer.
    pub async fn set_drain(&self, draining: bool) -> Result<Drain, Error> {
        let value = Value::new(serde_json::json!({ "draining": draining }).to_string(), "application/json");
        self.fetch_with(Method::PUT, DRAIN_PATH.to_owned(), Some(value)).await
    }

    /// The answering node's response to a GET of `path`, whatever its form; `None` if the node has no such call.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no node could answer, [`Error::Refused`] if it refused.
    pub async fn raw(&self, path: &str) -> Result<Option<Bytes>, Error> {
        self.fetch_raw(path.to_owned()).await
    }
}
