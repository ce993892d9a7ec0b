//! Buckets and keys in paths: percent-encoded bytes. Slashes and dots have no meaning in a key.

use bytes::Bytes;
use cartwheel_core::cluster::membership::View;
use cartwheel_core::value::key::Key;

use super::error::ApiError;
use crate::percent;

/// The prefix of the path of a call on a key.
pub(super) const KV: &str = "/v1/kv/";

/// The key in the raw path of a `PREFIX{bucket}/{key}` call.
pub(super) fn key_of(view: &View, prefix: &str, path: &str) -> Result<Key, ApiError> {
    let (bucket, name) =
        path.strip_prefix(prefix).and_then(|rest| rest.split_once('/')).ok_or_else(|| no_key(prefix))?;
    view.key(decode(bucket)?, decode(name)?).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// Whether a path names a key, and not only a bucket.
pub(super) fn names_key(path: &str) -> bool {
    path.strip_prefix(KV).is_some_and(|rest| rest.is_empty() || rest.contains('/'))
}

/// The error for a path without a key.
pub(super) fn no_key(prefix: &str) -> ApiError {
    ApiError::bad_request(format!("the path names no key: it is {prefix}{{bucket}}/{{key}}"))
}

/// Decodes a part of a path.
pub(super) fn decode(part: &str) -> Result<Bytes, ApiError> {
    percent::decode(part)
        .ok_or_else(|| ApiError::bad_request(format!("{part:?} is not percent-encoded: write a % itself as %25")))
}

/// Percent-encodes a key for a path, in which slashes and most punctuation need no encoding (RFC 3986, section 3.3).
pub(super) fn encode_key(bytes: &[u8]) -> String {
    percent::encode_but(bytes, b"-._~!$&'()*+,;=:@/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_all_that_follows_the_bucket() {
        let view = crate::backend::tests::view();
        let key = |path: &str| key_of(view, KV, path).map(|key| (key.bucket().to_vec(), key.name().to_vec())).ok();
        assert_eq!(key("/v1/kv/b/k"), Some((b"b".to_vec(), b"k".to_vec())));
        assert_eq!(key("/v1/kv/a%2Fb/c/d//e%2f/"), Some((b"a/b".to_vec(), b"c/d//e//".to_vec())));
        assert_eq!(key("/v1/kv/%00%ff/.."), Some((b"\x00\xff".to_vec(), b"..".to_vec())));
        assert_eq!(key("/v1/kv/b/a+b"), Some((b"b".to_vec(), b"a+b".to_vec())));
        for bad in ["/v1/kv/b", "/v1/kv/b/", "/v1/kv//k", "/v1/kv/b/%", "/v1/kv/b/%4", "/v1/kv/b/%+4", "/v1/kv/b/%zz"] {
            assert_eq!(key(bad), None, "{bad}");
        }
        assert!(key(&format!("/v1/kv/b/{}", "%20".repeat(4096))).is_some());
        assert!(key(&format!("/v1/kv/b/{}", "k".repeat(4097))).is_none());
    }
}
