use crate::TlsError;

/// An endpoint that a client cannot use.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadEndpoint {
    /// No endpoint was given.
    #[error("no endpoint given: pass the address of at least one node, such as http://127.0.0.1:8081")]
    None,
    /// This one is not the address of a node.
    #[error("{0:?} is not an endpoint: pass a node's address, such as http://127.0.0.1:8081")]
    Form(String),
}

/// Why a request could not be carried out. Of several attempts' causes, the greatest is reported: it is the most specific.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// No node could be reached, or the connection broke.
    Unreachable,
    /// A node did not answer in time.
    TimedOut,
    /// A node could not reach enough replicas, or could not verify what they hold (503 or 504).
    TooFewReplicas,
    /// A node is overloaded (429).
    Overloaded,
    /// A node's disk is full (507).
    DiskFull,
}

impl Cause {
    const fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => "Check that nodes run at these addresses, then try again",
            Self::TimedOut | Self::TooFewReplicas => "Run `cartwheel cluster status` to find the cause, then try again",
            Self::Overloaded => "Send fewer requests at once, or try again later",
            Self::DiskFull => "Free disk space or add nodes",
        }
    }
}

/// Why a request failed.
///
/// A write that failed with [`Error::Unavailable`] may have been stored, in part or on a node that did not answer in time. Repeat it under the same
/// [idempotency key](crate::Options::idempotency_key), and it cannot make a second sibling:
///
/// ```no_run
/// # async fn example(client: cartwheel_client::Client) -> Result<(), cartwheel_client::Error> {
/// use cartwheel_client::{Error, Options, Value};
///
/// let options = Options { idempotency_key: Some("order-4711".to_owned()), ..Options::default() };
/// let order = Value::new("two tickets", "text/plain");
/// while let Err(error) = client.put_with("orders", "4711", order.clone(), None, &options).await {
///     match error {
///         Error::Unavailable { cause, .. } => eprintln!("not stored yet: {cause:?}"),
///         other => return Err(other),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client was made with an endpoint that it cannot use.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// A certificate or a key cannot be used.
    #[error("cannot use TLS: {0}")]
    Tls(#[from] TlsError),
    /// The cluster refused the request. Sending it again does not help.
    #[error("{message} ({code})")]
    Refused {
        /// The error code, such as `bad_request`.
        code: String,
        /// What is wrong and what to do, as text for people.
        message: String,
    },
    /// No node could carry out the request in time. A write may still take effect.
    #[error("no node could carry out the request ({attempts} attempts); last error: {last}. {}", .cause.advice())]
    Unavailable {
        /// The number of attempts.
        attempts: u32,
        /// The error of the last attempt with this cause.
        last: String,
        /// The most specific cause of all attempts.
        cause: Cause,
    },
    /// A response that no Cartwheel node sends: another program listens at the endpoint.
    #[error("the endpoint answered with {0}: check that it is a Cartwheel node")]
    UnexpectedResponse(String),
    /// The operating system provides no random bytes. Without them the client cannot name a write, so it could not repeat it safely.
    #[error("cannot read random bytes from the operating system: {0}")]
    NoRandomness(#[from] getrandom::Error),
}
