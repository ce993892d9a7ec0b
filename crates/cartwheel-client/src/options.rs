use std::time::Duration;

use crate::Context;

/// The consistency of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Consistency {
    /// The first replicas to answer, as many as the bucket's r or w, or [`Options::replicas`].
    #[default]
    Eventual,
    /// A majority of the key's homes. Reads and writes are linearizable per key, as long as the key is written with strong consistency only.
    Strong,
}

/// How a request is carried out. The default follows the bucket's settings.
///
/// ```
/// use std::time::Duration;
///
/// use cartwheel_client::{Consistency, Options};
///
/// let options = Options {
///     consistency: Consistency::Strong,
///     deadline: Some(Duration::from_secs(2)),
///     ..Options::default()
/// };
/// # assert_eq!(options.replicas, None);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Whether the request is eventual or strong.
    pub consistency: Consistency,
    /// The number of replicas that must answer a get or store a put, instead of the bucket's r or w. Strong requests ignore it.
    pub replicas: Option<u8>,
    /// How long one node may take; 5 s if `None`. If it fails, the other endpoints are tried, so a request may take longer.
    pub timeout: Option<Duration>,
    /// How long the request may take over all attempts; unbounded if `None`. While there are other endpoints to try, one node gets at most half of
    /// the time that is left.
    pub deadline: Option<Duration>,
    /// The key of a write, 1 to 255 printable ASCII characters; the client draws a random one if it is `None`. The same write sent again under the
    /// same key, at any time and by any client, is stored once and makes no second sibling.
    pub idempotency_key: Option<String>,
    /// For a get: the response must cover this context. This provides read-your-writes and monotonic reads.
    pub seen: Option<Context>,
}

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

impl Options {
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }

    /// The query, without `timeout_ms`. `quorum` is the name of the parameter for [`Self::replicas`]: `r` or `w`.
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
