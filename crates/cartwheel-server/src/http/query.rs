//! Query parameters. An unknown one is refused: a misspelt `w=3` must not pass for a guarantee.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cartwheel_core::message::client::Consistency;
use cartwheel_core::node::sums::SUMS_LEVEL_MAX;

use super::error::ApiError;
use super::target;
use crate::percent;

/// The default time limit of a request.
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(5_000);
const TIMEOUT_MS_MAX: u64 = 60_000;
const AFTER_MS_MAX: f64 = 3_600_000.0;

/// The parameters of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Query {
    pub(super) r: Option<u8>,
    pub(super) w: Option<u8>,
    pub(super) consistency: Consistency,
    pub(super) timeout: Duration,
    pub(super) return_body: bool,
    /// The storage key at which a listing begins.
    pub(super) from: Option<Bytes>,
    /// The largest number of entries in a listing.
    pub(super) limit: Option<usize>,
    /// What the keys in a list begin with.
    pub(super) prefix: Option<Bytes>,
    /// Where a list of keys goes on.
    pub(super) cursor: Option<Bytes>,
    /// A time after an acknowledgement.
    pub(super) after: Option<Duration>,
    /// The storage key before which a copy ends.
    pub(super) until: Option<Bytes>,
    /// The level of a Merkle tree.
    pub(super) level: Option<u8>,
    /// A cluster's id, in hexadecimal.
    pub(super) cluster: Option<String>,
}

impl Query {
    /// Checks that a call without parameters is given none.
    pub(super) fn none(query: Option<&str>) -> Result<(), ApiError> {
        Self::parse(query, &[]).map(drop)
    }

    /// Parses the parameters of a call; `known` are those that it has.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut parsed = Self {
            r: None,
            w: None,
            consistency: Consistency::default(),
            timeout: TIMEOUT_DEFAULT,
            return_body: false,
            from: None,
            limit: None,
            prefix: None,
            cursor: None,
            after: None,
            until: None,
            level: None,
            cluster: None,
        };
        let mut met = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, encoded) = (text(name)?, value);
            if !known.contains(&name.as_str()) {
                let instead =
                    if known.is_empty() { "leave it out".to_owned() } else { format!("use {}", known.join(", ")) };
                return Err(ApiError::bad_request(format!("there is no parameter {name:?} here: {instead}")));
            }
            if met.contains(&name) {
                return Err(ApiError::bad_request(format!("{name} is given twice: give it once")));
            }
            match &name[..] {
                // Bytes, which need not be text.
                "prefix" => parsed.prefix = Some(target::decode(encoded)?),
                _ => parsed.set(&name, &text(encoded)?)?,
            }
            met.push(name);
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let wanted = match name {
            "r" | "w" => "a number of replicas from 1",
            "timeout_ms" => "a number from 1 to 60000",
            "consistency" => "eventual or strong",
            "from" => "a storage_key or next of an earlier page",
            "limit" => "a number from 1",
            "cursor" => "the cursor of an earlier page",
            "after_ms" => "a number of milliseconds from 0 to 3600000",
            "until" => "the until of a range",
            "level" => "a level from 0 to 3",
            "cluster" => "the id of a cluster, of 32 hexadecimal digits",
            _ => "body",
        };
        let bad = || ApiError::bad_request(format!("{name}={value} is invalid: give {wanted}"));
        match name {
            "r" => self.r = Some(replicas(value).ok_or_else(bad)?),
            "w" => self.w = Some(replicas(value).ok_or_else(bad)?),
            "timeout_ms" => {
                let ms = value.parse().ok().filter(|ms| (1..=TIMEOUT_MS_MAX).contains(ms)).ok_or_else(bad)?;
                self.timeout = Duration::from_millis(ms);
            }
            "consistency" => {
                self.consistency = match value {
                    "eventual" => Consistency::Eventual,
                    "strong" => Consistency::Strong,
                    _ => return Err(bad()),
                };
            }
            "from" => self.from = Some(URL_SAFE_NO_PAD.decode(value).map_err(|_| bad())?.into()),
            "cursor" => self.cursor = Some(URL_SAFE_NO_PAD.decode(value).map_err(|_| bad())?.into()),
            "after_ms" => {
                let ms = value.parse().ok().filter(|ms| (0.0..=AFTER_MS_MAX).contains(ms)).ok_or_else(bad)?;
                self.after = Some(Duration::from_secs_f64(ms / 1_000.0));
            }
            "until" => self.until = Some(URL_SAFE_NO_PAD.decode(value).map_err(|_| bad())?.into()),
            "level" => self.level = Some(value.parse().ok().filter(|&level| level <= SUMS_LEVEL_MAX).ok_or_else(bad)?),
            "cluster" if value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                self.cluster = Some(value.to_ascii_lowercase());
            }
            "limit" => self.limit = Some(value.parse().ok().filter(|&limit| limit > 0).ok_or_else(bad)?),
            _ if value == "body" => self.return_body = true,
            _ => return Err(bad()),
        }
        Ok(())
    }
}

fn replicas(value: &str) -> Option<u8> {
    value.parse().ok().filter(|&count| count > 0)
}

fn text(part: &str) -> Result<String, ApiError> {
    percent::decode(part)
        .and_then(|bytes| String::from_utf8(bytes.into()).ok())
        .ok_or_else(|| ApiError::bad_request(format!("{part:?} is not percent-encoded text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["r", "w", "consistency", "timeout_ms", "return"];

    #[test]
    fn valid_parameters_are_parsed() {
        let nothing = Query::parse(None, KNOWN).unwrap();
        assert_eq!((nothing.r, nothing.timeout, nothing.return_body), (None, TIMEOUT_DEFAULT, false));
        let all = Query::parse(Some("r=3&w=%31&consistency=strong&timeout_ms=60000&return=body&"), KNOWN).unwrap();
        let timeout = Duration::from_secs(60);
        let expected = Query {
            r: Some(3),
            w: Some(1),
            consistency: Consistency::Strong,
            timeout,
            return_body: true,
            ..Query::parse(None, KNOWN).unwrap()
        };
        assert_eq!(all, expected);
        let listing = Query::parse(Some("from=AP8&limit=7"), &["from", "limit"]).unwrap();
        assert_eq!((listing.from, listing.limit), (Some(Bytes::from_static(&[0, 255])), Some(7)));
    }

    #[test]
    fn invalid_parameters_are_refused() {
        for bad in [
            "x=1",
            "R=1",
            "r",
            "r=",
            "r=0",
            "r=256",
            "r=-1",
            "r=1&r=1",
            "w=two",
            "timeout_ms=0",
            "timeout_ms=60001",
            "consistency=Strong",
            "return=yes",
            "return",
            "r=%",
            "%ff=1",
        ] {
            assert!(Query::parse(Some(bad), KNOWN).is_err(), "{bad}");
        }
        for bad in ["from=%20", "from=A", "limit=0", "limit=-1", "limit=x", "limit"] {
            assert!(Query::parse(Some(bad), &["from", "limit"]).is_err(), "{bad}");
        }
        assert!(Query::parse(Some("w=1"), &["r"]).is_err(), "a parameter of another call");
    }
}
