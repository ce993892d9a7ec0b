//! JSON Lines.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Read as _};

use bytes::Bytes;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::export;
#[cfg(test)]
use super::record::RECORD_BYTES_MAX;
use super::record::{Item, Record, Shape, Start, TOO_LONG};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const BYTE_ORDER_MARK: &str = "\u{feff}";

pub(super) struct JsonLines<R> {
    input: R,
    shape: Shape,
    at: Start,
}

impl<R: BufRead> JsonLines<R> {
    /// Reads records from `input`, which begins at `start` of the file.
    pub(super) fn new(input: R, shape: Shape, start: Start) -> Self {
        Self { input, shape, at: start }
    }

    /// The next record; none at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            let begun = self.at;
            let mut bytes = Vec::new();
            let bytes_max = self.shape.line_bytes_max();
            let mut line = (&mut self.input).take(bytes_max + 1);
            let mut length = line.read_until(b'\n', &mut bytes)? as u64;
            if length == 0 {
                return Ok(None);
            }
            let too_long = length > bytes_max;
            if too_long && bytes.last() != Some(&b'\n') {
                length += self.skip_line()?;
            }
            self.at = Start { offset: begun.offset + length, line: begun.line + 1 };
            let record = if too_long {
                Err(TOO_LONG.to_owned())
            } else {
                match parse(&bytes, &self.shape, begun.offset == 0) {
                    None => continue,
                    Some(record) => record,
                }
            };
            return Ok(Some(Item { line: begun.line, next_line: self.at.line, end: self.at.offset, record }));
        }
    }

    /// Advances past the current line, and returns the bytes that it took.
    fn skip_line(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = self.input.fill_buf()?;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let count = end.map_or(buffer.len(), |end| end + 1);
            self.input.consume(count);
            skipped += count as u64;
            if end.is_some() || count == 0 {
                return Ok(skipped);
            }
        }
    }
}

/// The record of one line; none if it is blank.
fn parse(line: &[u8], shape: &Shape, first: bool) -> Option<Result<Record, String>> {
    let Ok(text) = std::str::from_utf8(line) else { return Some(Err("the line is not UTF-8".to_owned())) };
    let text = if first { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text };
    let text = text.trim();
    (!text.is_empty()).then(|| record(text, shape))
}

fn record(text: &str, shape: &Shape) -> Result<Record, String> {
    if shape.is_export {
        return export::record(text, shape);
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let picked = Pick(shape).deserialize(&mut json).and_then(|picked| json.end().map(|()| picked));
    let Picked { key, value } = picked.map_err(|error| syntax_error(&error))?;
    let key = key.ok_or_else(|| format!("no field {:?}, which --key names", shape.key))?;
    let key =
        key_bytes(key).ok_or_else(|| format!("the key is {}: it must be a string or a number", clip(key.get())))?;
    match &shape.value {
        None => shape.record(key, Bytes::copy_from_slice(text.as_bytes()), JSON),
        Some(name) => {
            let value = value.ok_or_else(|| format!("no field {name:?}, which --value names"))?;
            match serde_json::from_str::<String>(value.get()) {
                Ok(text) => shape.record(key, text.into(), TEXT),
                Err(_) => shape.record(key, Bytes::copy_from_slice(value.get().as_bytes()), JSON),
            }
        }
    }
}

/// The bytes of a string, or the digits of a number as written.
fn key_bytes(key: &RawValue) -> Option<Bytes> {
    match key.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(key.get()).ok().map(Bytes::from),
        b'-' | b'0'..=b'9' => Some(Bytes::copy_from_slice(key.get().as_bytes())),
        _ => None,
    }
}

fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut clipped: String = text.chars().take(CHARS_MAX).collect();
    if clipped.len() < text.len() {
        clipped.push_str("...");
    }
    clipped
}

/// The parser's message without its line number: the parser sees a single line, so the number would always be 1.
pub(super) fn syntax_error(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    let what = text.strip_suffix(&format!(" at line {} column {column}", error.line())).unwrap_or(&text);
    format!("the line is not a JSON object: {what} at column {column}")
}

/// Extracts two fields of an object, and checks that the rest is valid JSON.
struct Pick<'s>(&'s Shape);

#[derive(Default)]
struct Picked<'de> {
    key: Option<&'de RawValue>,
    value: Option<&'de RawValue>,
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Picked<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Picked<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Picked<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Picked<'de>, A::Error> {
        let mut picked = Picked::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let (is_key, is_value) = (name == self.0.key.as_str(), Some(&*name) == self.0.value.as_deref());
            if !is_key && !is_value {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let field = Some(map.next_value::<&RawValue>()?);
            if (is_key && picked.key.is_some()) || (is_value && picked.value.is_some()) {
                return Err(A::Error::custom(format!("the field {name:?} occurs twice")));
            }
            picked.key = if is_key { field } else { picked.key };
            picked.value = if is_value { field } else { picked.value };
        }
        Ok(picked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(text: &[u8], shape: Shape) -> Vec<Item> {
        let mut lines = JsonLines::new(text, shape, Start::FILE);
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn each_line_is_a_value_and_a_field_of_it_is_the_key() {
        let text =
            "\u{feff}{\"id\": \"a\", \"x\": [1]}\r\n\n  {\"id\":12345678901234567890.50}  \n{\"id\":\"\\u00e9\"}";
        let found = items(text.as_bytes(), Shape::of("id", None));
        let keys: Vec<_> = found.iter().map(|item| item.record.as_ref().unwrap().key.clone()).collect();
        assert_eq!(keys, ["a".as_bytes(), b"12345678901234567890.50", "é".as_bytes()]);
        assert_eq!(found[0].record.as_ref().unwrap().value, "{\"id\": \"a\", \"x\": [1]}");
        assert_eq!(found[0].record.as_ref().unwrap().content_type, JSON);
        assert_eq!(found.iter().map(|item| item.line).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(found[2].end, text.len() as u64);
    }

    #[test]
    fn a_single_field_can_be_the_value() {
        let text = b"{\"k\":\"a\",\"v\":\"one\\ntwo\"}\n{\"k\":\"b\",\"v\":{\"n\": 1.0}}\n";
        let found = items(text, Shape::of("k", Some("v")));
        let values: Vec<_> = found.into_iter().map(|item| item.record.unwrap()).collect();
        assert_eq!((&values[0].value[..], &*values[0].content_type), (&b"one\ntwo"[..], TEXT));
        assert_eq!((&values[1].value[..], &*values[1].content_type), (&b"{\"n\": 1.0}"[..], JSON));
        let same = items(b"{\"k\":\"a\"}", Shape::of("k", Some("k")));
        assert_eq!(same[0].record.as_ref().unwrap().value, "a");
    }

    #[test]
    fn a_bad_line_is_reported_and_the_next_line_is_read() {
        let long_key = format!("{{\"k\":\"{}\"}}", "x".repeat(4_097));
        for (bad, why) in [
            (&b"{\"x\":1}"[..], "no field \"k\""),
            (b"{\"k\":null}", "the key is null"),
            (b"{\"k\":[1]}", "the key is [1]"),
            (b"{\"k\":\"\"}", "the key is 0 bytes long"),
            (long_key.as_bytes(), "the key is 4097 bytes long"),
            (b"{\"k\":\"a\",\"k\":\"b\"}", "occurs twice"),
            (b"[1]", "not a JSON object"),
            (b"{\"k\":\"a\"", "not a JSON object"),
            (b"{\"k\":\"a\"} x", "not a JSON object"),
            (b"{\"k\":\"\xff\"}", "not UTF-8"),
        ] {
            let found = items(&[bad, b"\n{\"k\":\"good\"}\n"].concat(), Shape::of("k", None));
            let said = found[0].record.as_ref().unwrap_err();
            assert!(said.contains(why), "{said}");
            assert_eq!(found[1].record.as_ref().unwrap().key, "good");
            assert_eq!(found[1].line, 2);
        }
    }

    #[test]
    fn a_line_that_is_too_long_takes_bounded_memory_and_the_next_line_is_read() {
        let long = io::repeat(b'x').take(RECORD_BYTES_MAX * 2);
        let input = io::BufReader::new(long.chain(&b"\n{\"k\":1}"[..]));
        let mut lines = JsonLines::new(input, Shape::of("k", None), Start::FILE);
        let bad = lines.next().unwrap().unwrap();
        assert_eq!((bad.record, bad.end), (Err(TOO_LONG.to_owned()), RECORD_BYTES_MAX * 2 + 1));
        let good = lines.next().unwrap().unwrap();
        assert_eq!((good.record.unwrap().key, good.line), ("1".into(), 2));
        assert_eq!(lines.next().unwrap(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_to_the_end_and_resumed_at_any_item(
            text in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'"'), Just(b'\n'), Just(b'k'), any::<u8>()], 0..300),
        ) {
            let all = items(&text, Shape::of("k", None));
            for (number, item) in all.iter().enumerate() {
                let start = Start { offset: item.end, line: item.next_line };
                let mut rest = JsonLines::new(&text[item.end as usize..], Shape::of("k", None), start);
                let rest: Vec<_> = std::iter::from_fn(|| rest.next().unwrap()).collect();
                prop_assert_eq!(&rest[..], &all[number + 1..]);
            }
            let blank = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| text.trim().is_empty());
            let end = all.last().map_or(0, |item| item.end as usize);
            prop_assert!(text[end..].split(|&byte| byte == b'\n').all(|line| blank(line) || line == b"\xef\xbb\xbf"));
        }

        #[test]
        fn lines_written_by_serde_are_read_back(key in "\\PC{1,40}", value in "\\PC*") {
            let line = serde_json::json!({ "k": key, "v": value }).to_string();
            let found = items(line.as_bytes(), Shape::of("k", Some("v")));
            let record = found[0].record.as_ref().unwrap();
            prop_assert_eq!((&record.key[..], &record.value[..]), (key.as_bytes(), value.as_bytes()));
        }
    }
}
