//! Checks on the headers of every request, and protection against requests that a web page makes a browser send.
//!
//! A browser sends requests for any page that it shows, with the rights of its network. It says which page sends (`Origin`,
//! `Sec-Fetch-Site`), and under which name it reaches the node (`Host`). With DNS rebinding, that name is one that the page's owner
//! pointed at the node, and not one of the node's own. A request that changes something is refused if one of these headers is foreign, and so is a
//! browser's read under a foreign name; requests on values that no browser sends may use any name.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use cartwheel_core::cluster::membership::View;

use super::error::ApiError;
use super::headers::{CONTEXT, IDEMPOTENCY_KEY, TTL, single};
use super::{ApiState, access, target};

/// The headers that may have one value only.
const SINGLE: [HeaderName; 11] = [
    header::HOST,
    header::ORIGIN,
    SEC_FETCH_SITE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::EXPECT,
    header::AUTHORIZATION,
    CONTEXT,
    IDEMPOTENCY_KEY,
    TTL,
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Checks the headers of a request.
pub(super) fn check<B>(api: &ApiState, request: &Request<B>) -> Result<(), ApiError> {
    let headers = request.headers();
    for name in &SINGLE {
        single(headers, name)?;
    }
    let host = match single(headers, &header::HOST)? {
        Some(host) => Some(authority(host)?),
        None if request.version() < Version::HTTP_11 => None,
        None => return Err(ApiError::bad_request("the request has no Host header: HTTP/1.1 requires one")),
    };
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    if is_read && (!is_of_browser(headers) || access::is_open(request.uri().path())) {
        return Ok(());
    }
    let host = host.as_ref().map_or("", Authority::as_str);
    if is_read {
        return check_host(host, &api.view());
    }
    let (origin, site) = (headers.get(header::ORIGIN), headers.get(SEC_FETCH_SITE));
    check_page(origin, site, host)?;
    // A browser sets these headers on changes. Other programs may reach values under any name, such as a load balancer's.
    let is_value_of_a_program = request.uri().path().starts_with(target::KV) && origin.is_none() && site.is_none();
    if is_value_of_a_program { Ok(()) } else { check_host(host, &api.view()) }
}

/// Whether a browser sends this: it says what languages its user reads, and no program has a reason to.
fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ACCEPT_LANGUAGE) || headers.contains_key(SEC_FETCH_SITE)
}

fn authority(host: &HeaderValue) -> Result<Authority, ApiError> {
    let authority = Authority::try_from(host.as_bytes()).ok().filter(|host| !host.as_str().contains('@'));
    authority
        .ok_or_else(|| ApiError::bad_request("the Host header is not a host and port: give for example node-1:8081"))
}

/// Refuses a request that a browser sends for a page of another origin.
fn check_page(origin: Option<&HeaderValue>, site: Option<&HeaderValue>, host: &str) -> Result<(), ApiError> {
    let is_own = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let authority = origin.filter(|(scheme, _)| ["http", "https"].contains(scheme)).map(|(_, authority)| authority);
        authority.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    };
    let is_same = |site: &HeaderValue| site == "same-origin" || site == "none";
    if origin.is_none_or(is_own) && site.is_none_or(is_same) {
        return Ok(());
    }
    Err(ApiError::forbidden_origin(
        "a web page of another origin may not change anything: send the request from a program, without Origin and Sec-Fetch-Site",
    ))
}

/// Refuses a host name that is not a node's. An IP address is accepted: DNS rebinding cannot forge it.
fn check_host(host: &str, view: &View) -> Result<(), ApiError> {
    let name = name_of(host);
    let is_known = name.is_empty()
        || name.parse::<IpAddr>().is_ok()
        || name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok())
        || name.eq_ignore_ascii_case("localhost")
        || view.members().any(|known| name_of(&known.member.http_addr).eq_ignore_ascii_case(name));
    if is_known {
        return Ok(());
    }
    Err(ApiError::misdirected(format!(
        "no node is called {name:?}: to change anything, or to read with a browser, send the request to an IP address, to localhost, or to a node's name in \
        /v1/cluster (set with `cartwheel serve --http-address`)"
    )))
}

/// A host without its port and trailing dot.
fn name_of(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::super::tests::{api, put_done};
    use super::*;

    /// The status of the refusal of a request with these headers; none if it is admitted.
    fn checked(method: &str, headers: &[(&str, &str)]) -> Option<u16> {
        checked_at("/v1/cluster/members", method, headers)
    }

    fn checked_at(path: &str, method: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let (api, _) = api(put_done(None));
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri(path), |request, (name, value)| request.header(*name, *value));
        check(&api, &request.body(()).unwrap()).err().map(|error| error.status().as_u16())
    }

    #[tokio::test]
    async fn the_host_header_is_required_once_and_well_formed() {
        for method in ["GET", "PUT"] {
            assert_eq!(checked(method, &[]), Some(400));
            assert_eq!(checked(method, &[("host", "127.0.0.1"), ("host", "127.0.0.1")]), Some(400));
            for host in ["a b", "http://x", "a/b", "a@127.0.0.1", "x, y"] {
                assert_eq!(checked(method, &[("host", host)]), Some(400), "{host}");
            }
        }
        let (api, _) = api(put_done(None));
        let old = Request::put("/").version(Version::HTTP_10).body(()).unwrap();
        assert!(check(&api, &old).is_ok(), "HTTP/1.0 requires no Host");
    }

    #[tokio::test]
    async fn a_repeated_single_header_is_refused() {
        for name in SINGLE {
            assert_eq!(
                checked("GET", &[("host", "x"), (name.as_str(), "x"), (name.as_str(), "x")]),
                Some(400),
                "{name}"
            );
        }
        assert_eq!(checked("GET", &[("host", "x"), ("accept", "a/b"), ("accept", "c/d")]), None);
    }

    #[tokio::test]
    async fn a_page_of_another_origin_cannot_change_anything() {
        let forbidden = Some(StatusCode::FORBIDDEN.as_u16());
        for (name, value, refused) in [
            ("origin", "http://127.0.0.1:8081", None),
            ("origin", "http://127.0.0.1", forbidden),
            ("origin", "http://127.0.0.1:80", forbidden),
            ("origin", "https://127.0.0.1:8081", None),
            ("origin", "https://127.0.0.1:8082", forbidden),
            ("origin", "ftp://127.0.0.1:8081", forbidden),
            ("origin", "http://evil.example", forbidden),
            ("origin", "null", forbidden),
            ("origin", "", forbidden),
            ("sec-fetch-site", "same-origin", None),
            ("sec-fetch-site", "none", None),
            ("sec-fetch-site", "same-site", forbidden),
            ("sec-fetch-site", "cross-site", forbidden),
        ] {
            for method in ["PUT", "POST", "DELETE", "PATCH"] {
                assert_eq!(
                    checked(method, &[("host", "127.0.0.1:8081"), (name, value)]),
                    refused,
                    "{method} {name}: {value}"
                );
            }
            assert_eq!(checked("GET", &[("host", "127.0.0.1:8081"), (name, value)]), None, "GET {name}: {value}");
        }
    }

    #[tokio::test]
    async fn changes_need_a_host_that_the_node_knows() {
        let misdirected = Some(StatusCode::MISDIRECTED_REQUEST.as_u16());
        for (host, refused) in [
            ("127.0.0.1", None),
            ("10.1.2.3:9999", None),
            ("[::1]", None),
            ("[fe80::1]:80", None),
            ("localhost:1", None),
            ("LocalHost.", None),
            ("evil.example:8081", misdirected),
            ("localhost.evil.example", misdirected),
            ("127.0.0.1.evil.example", misdirected),
            ("[::1].evil.example", misdirected),
        ] {
            assert_eq!(checked("PUT", &[("host", host)]), refused, "{host}");
            assert_eq!(checked("GET", &[("host", host)]), None, "{host}");
            let browser = [("host", host), ("accept-language", "en")];
            for path in ["/v1/kv/b/k", "/v1/cluster", "/metrics"] {
                assert_eq!(checked_at(path, "GET", &browser), refused, "a browser's read: {host}");
            }
            assert_eq!(checked_at("/", "GET", &browser), None, "{host}");
            let value = |headers: &[(&str, &str)]| checked_at("/v1/kv/b/k", "PUT", headers);
            assert_eq!(value(&[("host", host)]), None, "a program's value: {host}");
            let own = format!("http://{host}");
            assert_eq!(value(&[("host", host), ("origin", &own)]), refused, "a browser's value: {host}");
            assert_eq!(value(&[("host", host), ("sec-fetch-site", "same-origin")]), refused, "{host}");
        }
    }

    #[test]
    fn names_of_hosts() {
        for (host, name) in
            [("a:1", "a"), ("a", "a"), ("a.:1", "a"), ("[::1]:1", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(name_of(host), name);
        }
    }
}
