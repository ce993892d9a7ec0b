//! Which user a request is from, whether the user may make it, and the record of administrative ones.
//!
//! This comes before all calls: nothing of a request that is refused here reaches them. What a request needs follows from its method and path. A
//! path that is not listed needs the role that includes all others, so a new call is closed until it is opened.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cartwheel_core::cluster::membership::BucketRole;

use super::error::{ApiError, ErrorSummary};
use super::{ApiState, target};
use crate::access::{AuditEvent, Credentials, Denied, Principal};
use crate::tcp::connections::ClientAddr;

/// What a request needs.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Needs {
    Nothing,
    /// Any user.
    User,
    /// A role for a bucket.
    Bucket(BucketRole, Bytes),
    /// To change the members.
    Cluster,
    /// To be this user, or one that may do everything.
    Oneself(String),
    Everything,
}

/// What an administrative request did, for the audit log. A call adds it to its response.
#[derive(Clone, Debug)]
pub(super) struct AuditDetail(pub(super) serde_json::Value);

/// The user that a request is from; none while clients need not be one.
///
/// # Errors
/// If it cannot be told, or if the user may not make the request.
pub(super) async fn check(
    api: &ApiState,
    (method, uri): (&Method, &Uri),
    headers: &HeaderMap,
    client: Option<IpAddr>,
) -> Result<Option<Arc<Principal>>, ApiError> {
    let access = api.access();
    if !access.is_on() {
        return Ok(None);
    }
    let needs = needs(method, uri.path())?;
    if needs == Needs::Nothing {
        return Ok(None);
    }
    let principal = principal(api, headers, client).await?;
    if may(&principal, &needs) { Ok(Some(principal)) } else { Err(missing(&principal, &needs)) }
}

async fn principal(api: &ApiState, headers: &HeaderMap, client: Option<IpAddr>) -> Result<Arc<Principal>, ApiError> {
    let access = api.access();
    let denied = |denied| denied_as(denied, headers);
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return access.anonymous().ok_or_else(|| denied(Denied::NoCredentials));
    };
    let given = Given::of(given.as_bytes()).ok_or_else(|| {
        ApiError::bad_request(
            "the Authorization header is neither `Basic` with a name and password nor `Bearer` with a token",
        )
    })?;
    access.authenticate(given.credentials(), client).await.map_err(denied)
}

/// The address that a request came from, if it was noted.
pub(super) fn client(request: &Request<Body>) -> Option<IpAddr> {
    request.extensions().get::<ClientAddr>().map(|client| client.0)
}

/// The contents of an `Authorization` header.
enum Given {
    Basic { user: String, password: Vec<u8> },
    Bearer(Vec<u8>),
}

impl Given {
    fn of(header: &[u8]) -> Option<Self> {
        let space = header.iter().position(|&byte| byte == b' ')?;
        let (scheme, rest) = (&header[..space], header[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Some(Self::Bearer(rest.to_vec()));
        }
        let decoded = scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(rest).ok())??;
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
        Some(Self::Basic { user, password: decoded[colon + 1..].to_vec() })
    }

    fn credentials(&self) -> Credentials<'_> {
        match self {
            Self::Basic { user, password } => Credentials::Password { user, password },
            Self::Bearer(token) => Credentials::Token(token),
        }
    }
}

fn denied_as(denied: Denied, headers: &HeaderMap) -> ApiError {
    // At `Basic` a browser would ask the user itself, behind the back of a page's script that asks already.
    let is_script = headers.get("sec-fetch-dest").is_some_and(|dest| dest == "empty");
    let challenges: &[&str] = match is_script {
        true => &["Bearer realm=\"cartwheel\""],
        false => &["Basic realm=\"cartwheel\", charset=\"UTF-8\"", "Bearer realm=\"cartwheel\""],
    };
    match denied {
        Denied::NoCredentials => ApiError::unauthorized(
            "the cluster has users: give a name and password (Basic) or an access token (Bearer), with the cartwheel command by --user or \
             --token-file",
            challenges,
        ),
        Denied::Wrong => ApiError::unauthorized(
            "the user, password or token is wrong or has ended: see `cartwheel user list`, or ask an administrator",
            challenges,
        ),
        Denied::TooMany(wait) => ApiError::too_many_logins(wait),
    }
}

/// Whether what is at a path may be read without a user.
pub(super) fn is_open(path: &str) -> bool {
    ["/", "/healthz", "/readyz", "/openapi.json"].contains(&path) || path.starts_with("/assets/")
}

/// What a request needs.
fn needs(method: &Method, path: &str) -> Result<Needs, ApiError> {
    let is_read = method == Method::GET || method == Method::HEAD;
    let role = if is_read { BucketRole::Read } else { BucketRole::Write };
    if let Some(rest) = path.strip_prefix(target::KV) {
        return Ok(Needs::Bucket(role, bucket_in(rest)?));
    }
    if let Some(rest) = path.strip_prefix("/v1/buckets/").filter(|rest| !rest.is_empty()) {
        return Ok(Needs::Bucket(if is_read { BucketRole::Read } else { BucketRole::Admin }, bucket_in(rest)?));
    }
    // It shows the versions of a key.
    if let Some(rest) = path.strip_prefix("/v1/cluster/replicas/") {
        return Ok(Needs::Bucket(BucketRole::Read, bucket_in(rest)?));
    }
    if let Some(rest) = path.strip_prefix("/v1/users/") {
        let name = rest.split('/').next().unwrap_or_default();
        // Users make and end tokens of their own, and change their password. The call refuses what only administrators may do.
        return Ok(if method == Method::DELETE && rest == name {
            Needs::Everything
        } else {
            Needs::Oneself(name.to_owned())
        });
    }
    Ok(match path {
        _ if is_read && is_open(path) => Needs::Nothing,
        "/metrics" | "/v1/whoami" | "/v1/buckets" | "/v1/cluster" if is_read => Needs::User,
        _ if path.starts_with("/v1/cluster/partitions/") => Needs::Everything,
        _ if path.starts_with("/v1/cluster/") => {
            if is_read {
                Needs::User
            } else {
                Needs::Cluster
            }
        }
        _ => Needs::Everything,
    })
}

/// The bucket at the front of a path.
fn bucket_in(path: &str) -> Result<Bytes, ApiError> {
    target::decode(path.split('/').next().unwrap_or_default())
}

fn may(principal: &Principal, needs: &Needs) -> bool {
    let user = principal.user();
    match needs {
        Needs::Nothing | Needs::User => true,
        Needs::Bucket(role, bucket) => user.has(*role, bucket),
        Needs::Cluster => user.may_change_cluster(),
        Needs::Oneself(name) => principal.name() == name || user.is_admin(),
        Needs::Everything => user.is_admin(),
    }
}

fn missing(principal: &Principal, needs: &Needs) -> ApiError {
    let role = match needs {
        Needs::Bucket(role, bucket) => format!("{role}:{}", String::from_utf8_lossy(bucket)),
        Needs::Cluster => "cluster".to_owned(),
        _ => "admin:*".to_owned(),
    };
    ApiError::forbidden(format!("the user {} lacks the role {role}: ask an administrator for it", principal.name()))
}

/// The record of an administrative request, to be completed with its response; none for other requests.
pub(super) struct Act {
    user: Option<String>,
    client: Option<IpAddr>,
    act: String,
}

impl Act {
    /// Begins the record of a request, if it changes something other than a value.
    pub(super) fn begin(request: &Request<Body>) -> Option<Self> {
        let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        let path = request.uri().path();
        let is_value = path.starts_with(target::KV);
        (!is_read && !is_value).then(|| Self {
            user: None,
            client: client(request),
            act: format!("{} {path}", request.method()),
        })
    }

    /// Names the user, once it is known.
    pub(super) fn of(&mut self, principal: &Principal) {
        self.user = Some(principal.name().to_owned());
    }

    /// Records the request with its response.
    pub(super) fn end(self, api: &ApiState, response: &Response<Body>) {
        let extensions = response.extensions();
        let outcome = extensions.get::<ErrorSummary>().map_or("done", |summary| summary.code);
        let detail = extensions.get::<AuditDetail>().map(|detail| detail.0.clone());
        let Self { user, client, act } = self;
        api.access().audit().record(AuditEvent {
            user: user.as_deref(),
            client,
            api: "http",
            act: &act,
            outcome,
            detail,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_needs_follows_from_its_method_and_path() {
        let bucket = |role, name: &'static [u8]| Needs::Bucket(role, Bytes::from_static(name));
        for (method, path, expected) in [
            ("GET", "/v1/kv/carts/a/b", bucket(BucketRole::Read, b"carts")),
            ("HEAD", "/v1/kv/a%2Fb/k", bucket(BucketRole::Read, b"a/b")),
            ("PUT", "/v1/kv/carts/k", bucket(BucketRole::Write, b"carts")),
            ("DELETE", "/v1/kv/%FF/k", bucket(BucketRole::Write, b"\xff")),
            ("POST", "/v1/kv/carts/k", bucket(BucketRole::Write, b"carts")),
            ("GET", "/v1/kv/carts", bucket(BucketRole::Read, b"carts")),
            ("GET", "/v1/kv/", bucket(BucketRole::Read, b"")),
            ("GET", "/v1/buckets", Needs::User),
            ("GET", "/v1/buckets/carts", bucket(BucketRole::Read, b"carts")),
            ("GET", "/v1/buckets/carts/anything", bucket(BucketRole::Read, b"carts")),
            ("PUT", "/v1/buckets/carts", bucket(BucketRole::Admin, b"carts")),
            ("DELETE", "/v1/buckets/carts", bucket(BucketRole::Admin, b"carts")),
            ("GET", "/v1/cluster", Needs::User),
            ("GET", "/v1/cluster/ring", Needs::User),
            ("POST", "/v1/cluster/members", Needs::Cluster),
            ("PUT", "/v1/cluster/drain", Needs::Cluster),
            ("GET", "/v1/cluster/replicas", Needs::User),
            ("GET", "/v1/cluster/replicas/carts/k", bucket(BucketRole::Read, b"carts")),
            ("GET", "/assets/dashboard.js", Needs::Nothing),
            ("GET", "/v1/cluster/partitions/3/digests", Needs::Everything),
            ("GET", "/v1/users", Needs::Everything),
            ("GET", "/v1/users/ann", Needs::Oneself("ann".to_owned())),
            ("PUT", "/v1/users/ann", Needs::Oneself("ann".to_owned())),
            ("DELETE", "/v1/users/ann", Needs::Everything),
            ("POST", "/v1/users/ann/tokens", Needs::Oneself("ann".to_owned())),
            ("DELETE", "/v1/users/ann/tokens/1", Needs::Oneself("ann".to_owned())),
            ("GET", "/metrics", Needs::User),
            ("POST", "/metrics", Needs::Everything),
            ("GET", "/", Needs::Nothing),
            ("GET", "/healthz", Needs::Nothing),
            ("GET", "/readyz", Needs::Nothing),
            ("GET", "/v1/debug/queues", Needs::Everything),
            ("GET", "/v1/whatever", Needs::Everything),
            ("GET", "//v1/kv/carts/k", Needs::Everything),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(needs(&method, path).unwrap(), expected, "{method} {path}");
        }
        assert!(needs(&Method::GET, "/v1/kv/%zz/k").is_err());
    }

    #[test]
    fn credentials_are_read_from_the_header() {
        let basic = |text: &str| Given::of(format!("Basic {}", STANDARD.encode(text)).as_bytes());
        assert!(
            matches!(basic("ann:a:b"), Some(Given::Basic { user, password }) if user == "ann" && password == b"a:b")
        );
        assert!(matches!(basic("ann:"), Some(Given::Basic { password, .. }) if password.is_empty()));
        assert!(basic("ann").is_none());
        assert!(matches!(Given::of(b"bearer  x "), Some(Given::Bearer(token)) if token == b"x"));
        for bad in [&b""[..], b"Basic", b"Basic %", b"Digest x", b"Bearer"] {
            assert!(Given::of(bad).is_none(), "{bad:?}");
        }
    }
}
