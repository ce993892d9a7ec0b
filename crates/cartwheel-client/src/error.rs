/// An endpoint cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadEndpoint {
    /// There is none.
    #[error("no endpoint is given: give the address of at least one node, as http://127.0.0.1:8081")]
    None,
    /// One is not the address of a node.
    #[error("{0:?} is no endpoint: give a node's address, as http://127.0.0.1:8081")]
    Form(String),
}

/// What stood in the way of a request; of several attempts, what says most, which is the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// No node was reached, or the connection broke.
    Unreachable,
    /// A node did not answer in time.
    TimedOut,
    /// A node could not reach enough replicas, or could not say what they hold: 503 or 504.
    TooFewReplicas,
    /// A node has too much to do: 429.
    Overloaded,
    /// A node's disk is full: 507.
    DiskFull,
}

impl Cause {
    const fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => "Check that nodes run at the addresses given, then try again",
            Self::TimedOut | Self::TooFewReplicas => "See `cartwheel cluster status` for what is wrong, then try again",
            Self::Overloaded => "Ask for less at once, or try again later",
            Self::DiskFull => "Make room, or add nodes",
        }
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client was given an endpoint that cannot be used.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// The cluster refused the request: trying again will not help.
    #[error("{message} ({code})")]
    Refused {
        /// The contract's code, as `bad_request`.
        code: String,
        /// What happened and what to do.
        message: String,
    },
    /// No node could carry out the request in time. A write may yet appear.
    #[error("no node could carry out the request after {attempts} attempts; the last one: {last}. {}", .cause.advice())]
    Unavailable {
        /// How many were made.
        attempts: u32,
        /// What became of the last one that says most.
        last: String,
        /// What stood in the way.
        cause: Cause,
    },
    /// An answer is none that a Cartwheel node gives.
    #[error("the endpoint answered with {0}: check that it is a Cartwheel node")]
    Strange(String),
    /// The operating system has no randomness to give, and without it a write cannot be repeated safely.
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(#[from] getrandom::Error),
}
