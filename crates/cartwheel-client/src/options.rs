use std::time::Duration;

use crate::Context;

/// Which promise a request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// As many replicas as the bucket says, whichever answer first.
    #[default]
    Eventual,
    /// Majorities: linearizable per key, if the key is written only so.
    Strong,
}

/// How a request is to be carried out; the default is as the bucket says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Which promise it wants.
    pub consistency: Consistency,
    /// How many replicas are to answer a get, or to store a put.
    pub replicas: Option<u8>,
    /// How long one node may take; 5 s if not said. With other endpoints to try, a request may take longer in all.
    pub timeout: Option<Duration>,
    /// How long the request may take in all, whatever nodes do; not bounded if not said. While there are other endpoints to try, one node gets
    /// at most half of what is left.
    pub deadline: Option<Duration>,
    /// For a write: its name, 1 to 255 printable ASCII characters; made up if not said. The same write under the same name, at any
    /// time and from any client, is one write: no second sibling.
    pub idempotency_key: Option<String>,
    /// For a get: what the answer must cover.
    pub seen: Option<Context>,
}

/// How long a node may take if the options do not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

impl Options {
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }

    /// The query, in which a quorum is called `quorum`, but for the time that the node has.
    pub(crate) fn query(&self, quorum: char) -> String {
        let mut query = String::new();
        if let Some(replicas) = self.replicas {
            query.push_str(&format!("&{quorum}={replicas}"));
        }
        if self.consistency == Consistency::Strong {
            query.push_str("&consistency=strong");
        }
        query
    }
}
