use std::fmt;
use std::str::FromStr;

/// The path of OTLP's collectors for traces.
const TRACES: &str = "/v1/traces";

/// The address of a collector of traces, which takes OTLP over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtlpEndpoint {
    address: String,
    path: String,
}

impl OtlpEndpoint {
    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The path for traces.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for OtlpEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "give the URL of a collector, for example http://127.0.0.1:4318".to_owned();
        if text.starts_with("https://") {
            return Err("traces are sent without TLS; give the http:// URL of a collector on this machine".to_owned());
        }
        let rest = text.strip_prefix("http://").ok_or_else(wanted)?;
        let (address, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = address.rsplit_once(':').ok_or_else(wanted)?;
        let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        if !is_host || !is_port || !path.chars().all(|c| c.is_ascii_graphic() && !"?#".contains(c)) {
            return Err(wanted());
        }
        let path = if path.trim_end_matches('/').is_empty() { TRACES } else { path };
        Ok(Self { address: address.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url() {
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("http://collector:80/tenant/v1/traces", "http://collector:80/tenant/v1/traces"),
        ] {
            let endpoint: OtlpEndpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(shown.parse(), Ok(endpoint));
        }
        for text in ["", "127.0.0.1:4318", "http://", "http://host", "http://host:0", "http://a b:1", "http://h:1/a b"]
        {
            assert!(text.parse::<OtlpEndpoint>().unwrap_err().contains("4318"), "{text}");
        }
        assert!("https://collector:4318".parse::<OtlpEndpoint>().unwrap_err().contains("without TLS"));
    }
}
