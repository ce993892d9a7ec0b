use std::fmt;
use std::str::FromStr;

/// An address to listen on, as `host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenAddr(String);

impl ListenAddr {
    /// The address, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether other nodes can connect to it: it is neither a wildcard address nor port 0.
    pub fn is_specific(&self) -> bool {
        let (host, port) = self.0.rsplit_once(':').unwrap_or((&self.0, ""));
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        port.parse() != Ok(0_u16) && !ip.is_ok_and(|ip| ip.to_canonical().is_unspecified())
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        match parts {
            Some((host, _)) if is_host(host) => Ok(Self(text.to_owned())),
            _ => Err("give an address to listen on as HOST:PORT, as 127.0.0.1:8080 or [::1]:8080".to_owned()),
        }
    }
}

fn is_host(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    }
}
