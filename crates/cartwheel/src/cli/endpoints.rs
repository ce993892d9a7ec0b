use std::time::Duration;

use cartwheel_client::{Client, Error};
use clap::Args;

/// Where nodes are looked for if nobody says: the first three of `cartwheel dev`, then the port that a lone `cartwheel serve` takes.
const DEFAULT: [&str; 4] = ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083", "127.0.0.1:8080"];

/// The environment variable that says where nodes are.
pub const ENDPOINTS: &str = "CARTWHEEL_ENDPOINTS";

/// The longest time that one node takes for a request.
const NODE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Where the cluster is.
#[derive(Clone, Debug, Args)]
pub struct Endpoints {
    /// A node's HTTP address, as host:port or a URL; give it again, or several with commas, for more nodes to try. By default the first
    /// nodes of `cartwheel dev` are tried, then a `cartwheel serve` on its default port.
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
    /// The addresses, of which the first one is tried first.
    pub fn addresses(&self) -> Vec<&str> {
        let given: Vec<&str> = self.node.iter().map(|node| node.trim()).filter(|node| !node.is_empty()).collect();
        // An empty variable counts as none.
        if given.is_empty() { DEFAULT.to_vec() } else { given }
    }

    /// Whether nobody has said where nodes are.
    pub fn is_default(&self) -> bool {
        self.addresses() == DEFAULT
    }

    /// A client that tries them, the first one first.
    ///
    /// # Errors
    /// If one of them cannot be used.
    pub fn client(&self) -> Result<Client, Error> {
        Client::new(self.addresses())
    }
}

/// A time as `2s`, `500ms`, or a number of seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let seconds = || text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = seconds().or_else(|| humantime::parse_duration(text).ok());
    let time = time.filter(|time| (Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(time));
    time.ok_or_else(|| "give a time from 1ms to 1h, as 2s, 500ms or 2.5".to_owned())
}

/// How long one node may take of a time for all.
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
