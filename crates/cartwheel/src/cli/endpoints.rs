use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cartwheel_client::{Client, Credentials, Error, Tls, TlsError};
use clap::Args;

use super::login::Login;

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
    /// Reach the nodes over TLS: trust certificates that the authority in this PEM file has signed.
    #[arg(long, value_name = "FILE", env = "CARTWHEEL_TLS_CA", value_parser = pem)]
    tls_ca: Option<Pem>,
    /// Show the nodes this certificate, in PEM.
    #[arg(long, value_name = "FILE", env = "CARTWHEEL_TLS_CERT", value_parser = pem, requires = "tls_key")]
    tls_cert: Option<Pem>,
    /// The private key of that certificate, in PEM.
    #[arg(long, value_name = "FILE", env = "CARTWHEEL_TLS_KEY", value_parser = pem, requires = "tls_cert")]
    tls_key: Option<Pem>,
    #[command(flatten)]
    login: Login,
}

/// What a PEM file holds; nothing if no file is named, as by an empty environment variable.
#[derive(Clone)]
pub struct Pem(Option<Arc<[u8]>>);

impl fmt::Debug for Pem {
    /// It may be a private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(..)")
    }
}

fn pem(path: &str) -> Result<Pem, String> {
    if path.is_empty() {
        return Ok(Pem(None));
    }
    std::fs::read(path).map(|bytes| Pem(Some(bytes.into()))).map_err(|error| format!("cannot read the file: {error}"))
}

impl Endpoints {
    /// The addresses, in the order in which they are tried.
    pub fn addresses(&self) -> Vec<&str> {
        let given: Vec<&str> = self.node.iter().map(|node| node.trim()).filter(|node| !node.is_empty()).collect();
        // An empty environment variable counts as unset.
        if given.is_empty() { DEFAULT.to_vec() } else { given }
    }

    /// The address of one node: the first one given, or the default of `cartwheel serve`.
    pub fn local(&self) -> &str {
        if self.is_default() { DEFAULT[3] } else { self.addresses()[0] }
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
        self.client_of(self.addresses())
    }

    /// The same for other addresses of nodes of the cluster.
    ///
    /// # Errors
    /// If an address is invalid, or a certificate cannot be used.
    pub fn client_of<A: AsRef<str>>(&self, addresses: impl IntoIterator<Item = A>) -> Result<Client, Error> {
        let addresses: Vec<A> = addresses.into_iter().collect();
        let tls = self.tls()?;
        if tls.is_none() && addresses.iter().any(|address| address.as_ref().starts_with("https://")) {
            return Err(TlsError::NoAuthority.into());
        }
        let client = Client::new(addresses)?.without_routing();
        let client = match tls {
            Some(tls) => client.with_tls(&tls),
            None => client,
        };
        Ok(match self.credentials() {
            Some(credentials) => client.with_credentials(&credentials),
            None => client,
        })
    }

    /// What the nodes are shown, if anything.
    pub fn credentials(&self) -> Option<Credentials> {
        self.login.credentials()
    }

    /// How the nodes are reached over TLS, if they are.
    ///
    /// # Errors
    /// If a certificate cannot be used.
    pub fn tls(&self) -> Result<Option<Tls>, Error> {
        let Some(Pem(Some(authority))) = &self.tls_ca else { return Ok(None) };
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(Pem(Some(cert))), Some(Pem(Some(key)))) => Tls::with_certificate(authority, cert, key)?,
            _ => Tls::of_authority(authority)?,
        };
        Ok(Some(tls))
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
