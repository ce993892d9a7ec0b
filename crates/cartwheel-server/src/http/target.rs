//! Buckets and keys in paths: percent-encoded bytes. Slashes and dots have no meaning in a key.

use bytes::Bytes;
use cartwheel_core::value::key::Key;

use super::error::ApiError;

/// The prefix of the path of a call on a key.
pub(super) const KV: &str = "/v1/kv/";

/// The key in the raw path of a `PREFIX{bucket}/{key}` call.
pub(super) fn key_of(prefix: &str, path: &str) -> Result<Key, ApiError> {
    let (bucket, name) =
        path.strip_prefix(prefix).and_then(|rest| rest.split_once('/')).ok_or_else(|| no_key(prefix))?;
    Key::new(decode(bucket)?, decode(name)?).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// The error for a path without a key.
pub(super) fn no_key(prefix: &str) -> ApiError {
    ApiError::bad_request(format!("the path names no key: it is {prefix}{{bucket}}/{{key}}"))
}

/// Decodes a part of a path.
pub(super) fn decode(part: &str) -> Result<Bytes, ApiError> {
    percent_decode(part)
        .ok_or_else(|| ApiError::bad_request(format!("{part:?} is not percent-encoded: write a % itself as %25")))
}

/// Decodes percent-encoding; none if a percent sign lacks its two hexadecimal digits.
pub(super) fn percent_decode(encoded: &str) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? << 4 | digit(rest.next())?) as u8
            }
            byte => byte,
        });
    }
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_all_that_follows_the_bucket() {
        let key = |path: &str| key_of(KV, path).map(|key| (key.bucket().to_vec(), key.name().to_vec())).ok();
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
