//! Paths, queries and headers of any bytes are parsed or refused, never a panic.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::collection::vec;
use proptest::prelude::*;

use super::query::Query;
use super::{headers, target};
use crate::backend::tests::view;

fn encoded(bytes: &[u8], plain: &[bool]) -> String {
    let byte = |(at, &byte): (usize, &u8)| match plain.get(at) {
        Some(true) if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        Some(false) => format!("%{byte:02x}"),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().enumerate().map(byte).collect()
}

/// Text that is nearly a query.
fn query() -> impl Strategy<Value = String> {
    let pair = prop_oneof![
        "[a-z_]{0,4}=?[0-9a-z%-]{0,6}",
        "(r|w|timeout_ms)=[0-9]{0,22}",
        "(consistency|return)=(strong|eventual|body)?",
        ".{0,8}",
    ];
    vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

/// Bytes that a header may contain.
fn value() -> impl Strategy<Value = HeaderValue> {
    vec(any::<u8>(), 0..300).prop_filter_map("bytes that no header may contain", |mut bytes| {
        bytes.retain(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        HeaderValue::from_bytes(&bytes).ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_have_a_path(
        bucket in vec(any::<u8>(), 1..=255), name in vec(any::<u8>(), 1..300), plain in vec(any::<bool>(), 0..100),
    ) {
        let path = format!("{}{}/{}", target::KV, encoded(&bucket, &plain), encoded(&name, &plain));
        let key = target::key_of(view(), target::KV, &path).unwrap();
        prop_assert_eq!((&key.bucket()[..], &key.name()[..]), (&bucket[..], &name[..]));
    }

    #[test]
    fn any_path_is_read_or_refused(path in "(/v1/kv/)?[a%/.0-9é]{0,40}", wild in ".{0,40}") {
        for path in [path, format!("{}{wild}", target::KV), wild] {
            if let Ok(key) = target::key_of(view(), target::KV, &path) {
                prop_assert!(!key.bucket().is_empty() && !key.name().is_empty());
            }
        }
    }

    #[test]
    fn any_query_is_read_or_refused(query in query()) {
        for known in [&["r", "consistency", "timeout_ms"][..], &["w", "consistency", "timeout_ms", "return"]] {
            if let Ok(read) = Query::parse(Some(&query), known) {
                prop_assert!(read.r != Some(0) && read.w != Some(0));
                let ms = read.timeout.as_millis();
                prop_assert!((1..=60_000).contains(&ms));
            }
        }
    }

    #[test]
    fn any_headers_are_read_or_refused(a in value(), b in value(), context in vec(any::<u8>(), 0..100)) {
        let mut headers = HeaderMap::new();
        for name in [header::ACCEPT, header::CONTENT_TYPE, header::CONTENT_LENGTH] {
            headers.insert(name.clone(), a.clone());
            headers.append(name, b.clone());
        }
        headers.insert("idempotency-key", b);
        headers.insert(headers::CONTEXT, a.clone());
        let _ = (headers::context(&headers), headers::retry(&headers), headers::wants_json(&headers));
        prop_assert!(headers::content_type(&headers).is_err(), "given twice");
        headers.insert(header::CONTENT_TYPE, a);
        let _ = headers::content_type(&headers);

        headers.insert(headers::CONTEXT, HeaderValue::try_from(URL_SAFE_NO_PAD.encode(&context)).unwrap());
        prop_assert_eq!(&headers::context(&headers).unwrap().unwrap()[..], &context[..]);
    }
}
