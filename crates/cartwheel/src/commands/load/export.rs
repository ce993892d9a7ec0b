//! The lines that `cartwheel export` writes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cartwheel_client::{Value, decode_key};
use serde::Deserialize;

use super::jsonl::syntax_error;
use super::record::{Exported, Record, Shape};

/// A key with its siblings. Other fields, such as contexts, mean nothing in another cluster.
#[derive(Deserialize)]
struct Line {
    key: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    /// Absent: a tombstone.
    value: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    ttl: Option<u64>,
}

/// The record of a line: its first value, and the others as siblings of it.
pub(super) fn record(text: &str, shape: &Shape) -> Result<Record, String> {
    let Line { key, siblings } = serde_json::from_str(text).map_err(|error| syntax_error(&error))?;
    let key = decode_key(&key).ok_or_else(|| format!("the key {key:?} is not percent-encoded"))?;
    let mut values = Vec::new();
    for sibling in siblings {
        let Some(value) = sibling.value else { continue };
        let bytes = STANDARD.decode(value).map_err(|error| format!("a value is not base64: {error}"))?;
        values.push(Value {
            bytes: bytes.into(),
            content_type: sibling.content_type.unwrap_or_default(),
            content_encoding: sibling.content_encoding.unwrap_or_default(),
            ttl: sibling.ttl.map(Duration::from_secs),
        });
    }
    if values.is_empty() {
        return Err("the key has no value".to_owned());
    }
    let Value { bytes, content_type, content_encoding, ttl } = values.remove(0);
    let record = shape.record(key, bytes, &content_type)?;
    Ok(Record { exported: Exported { content_encoding, ttl, siblings: values }, ..record })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        let mut shape = Shape::of("", None);
        shape.is_export = true;
        shape
    }

    #[test]
    fn a_line_has_a_key_with_all_its_values() {
        let line = r#"{"key":"a%2Fb/c","context":"x","siblings":[{"value":"b25l","deleted":false,"content_type":"t","ttl":9},
            {"deleted":true},{"value":"dHdv","content_type":"u","content_encoding":"gzip"}]}"#;
        let record = record(line, &shape()).unwrap();
        assert_eq!((&record.key[..], &record.value[..], &*record.content_type), (&b"a/b/c"[..], &b"one"[..], "t"));
        assert_eq!(record.exported.ttl, Some(Duration::from_secs(9)));
        let other = Value { content_encoding: "gzip".to_owned(), ..Value::new("two", "u") };
        assert_eq!(record.exported.siblings, [other]);
    }

    #[test]
    fn bad_lines_are_refused() {
        for (line, why) in [
            (r#"{"key":"a","siblings":[]}"#, "no value"),
            (r#"{"key":"%","siblings":[]}"#, "percent-encoded"),
            (r#"{"key":"a","siblings":[{"value":"%"}]}"#, "base64"),
            (r#"{"key":"","siblings":[{"value":""}]}"#, "0 bytes long"),
            ("[]", "not a JSON object"),
        ] {
            let said = record(line, &shape()).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
