use std::time::Duration;

use cartwheel_client::{Client, Error};
use clap::Args;

/// The endpoints to try if none are given: the first three nodes of `cartwheel dev`, then the default port of `cartwheel serve`.
const DEFAULT: [&str; 4] = ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083", "127.0.0.1:8080"];

/// The environment variable that lists endpoints.
pub const ENDPOINTS: &str = "CARTWHEEL_ENDPOINTS";

/// The longest timeout that a node accepts for one request (`timeout_ms`).
const NODE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// The HTTP addresses of the cluster's nodes.
#[derive(Clone, Debug, Args)]
pub struct Endpoints {
    /// A node's HTTP address, as host:port or a URL.
    ///
    /// Repeat the flag, or separate addresses with commas, to try more nodes. By default the first nodes of `cartwheel dev` are tried,
    /// then a `cartwheel serve` on its default port.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = ENDPOINTS,
        value_delimiter = ',',
        default_values = DEFAULT,
        hide_default_value = true
    )]
    node: Vec<String>,
}

impl Endpoints {
    /// The addresses, in the order in which they are tried.
    pub fn addresses(&self) -> Vec<&str> {
        let given: Vec<&str> = self.node.iter().map(|node| node.trim()).filter(|node| !node.is_empty()).collect();
        // An empty environment variable counts as unset.
        if given.is_empty() { DEFAULT.to_vec() } else { given }
    }

    /// Whether the default addresses are used.
    pub fn is_default(&self) -> bool {
        self.addresses() == DEFAULT
    }

    /// Returns a client that tries the addresses in order. It does not go by the ring: a command makes few requests, and `--node` says which nodes
    /// serve them.
    ///
    /// # Errors
    /// If an address is invalid.
    pub fn client(&self) -> Result<Client, Error> {
        Ok(Client::new(self.addresses())?.without_routing())
    }
}

/// Parses a time as `2s`, `500ms`, or a number of seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let seconds = || text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = seconds().or_else(|| humantime::parse_duration(text).ok());
    let time = time.filter(|time| (Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(time));
    time.ok_or_else(|| "expected a time from 1ms to 1h, such as 2s, 500ms or 2.5".to_owned())
}

/// The timeout of a request to one node, given the time limit of the whole operation.
pub(crate) fn node_timeout(time: Duration) -> Duration {
    time.min(NODE_TIMEOUT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_are_seconds() {
        for (text, ms) in [("2s", 2_000), ("500ms", 500), ("2.5", 2_500), ("1m 30s", 90_000)] {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "0", "-1", "soon", "2h", "NaN", "1e300"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
