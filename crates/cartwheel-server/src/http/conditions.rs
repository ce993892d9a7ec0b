//! Conditional requests (RFC 9110, section 13). Reads honour their conditions. Writes with a condition are refused: the node cannot make
//! them conditional yet, and a write that ignored its condition would lose what the condition protects.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::error::ApiError;

/// Headers that make a write conditional or partial.
const REFUSED_ON_WRITES: [HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::CONTENT_RANGE,
];

/// The outcome of a read's conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Send the representation.
    Serve,
    /// The client has the current representation: 304.
    NotModified,
    /// A required condition does not hold: 412.
    Failed,
}

/// The validators of the representation that a read would show.
#[derive(Clone, Debug)]
pub(super) struct Validators {
    /// An entity tag, with its quotes.
    pub(super) etag: String,
    pub(super) modified: SystemTime,
}

/// Refuses a write that is conditional or partial.
pub(super) fn refuse_on_write(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(name) = REFUSED_ON_WRITES.iter().find(|name| headers.contains_key(*name)) else { return Ok(()) };
    Err(ApiError::not_implemented(if name == header::CONTENT_RANGE {
        "Content-Range is not supported, and nothing was written: send the whole value".to_owned()
    } else {
        format!(
            "conditional writes are not supported ({name}), and nothing was written: read the key, and send the Cartwheel-Context of that \
            read with the write, which then replaces only what the read showed"
        )
    }))
}

/// Evaluates the conditions of a read, in the order of RFC 9110, section 13.2.2.
pub(super) fn of_read(headers: &HeaderMap, shown: &Validators) -> Verdict {
    let must_hold = match tags(headers, &header::IF_MATCH) {
        Some(tags) => tags.contain(&shown.etag, Comparison::Strong),
        None => date(headers, &header::IF_UNMODIFIED_SINCE).is_none_or(|date| seconds(shown.modified) <= seconds(date)),
    };
    if !must_hold {
        return Verdict::Failed;
    }
    let is_known = match tags(headers, &header::IF_NONE_MATCH) {
        Some(tags) => tags.contain(&shown.etag, Comparison::Weak),
        None => date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|date| seconds(shown.modified) <= seconds(date)),
    };
    if is_known { Verdict::NotModified } else { Verdict::Serve }
}

/// The entity tags that a header lists.
#[derive(PartialEq, Eq, Debug)]
enum Tags<'a> {
    /// `*`: any representation.
    Any,
    /// The tags with their quotes, and whether each is weak. A malformed tag is left out.
    Listed(Vec<(bool, &'a [u8])>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag equals no other.
    Strong,
    Weak,
}

impl Tags<'_> {
    fn contain(&self, etag: &str, comparison: Comparison) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags
                .iter()
                .any(|&(is_weak, tag)| tag == etag.as_bytes() && (comparison == Comparison::Weak || !is_weak)),
        }
    }
}

/// The tags of all headers called `name`; none if there is no such header.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Tags<'a>> {
    let lines: Vec<&HeaderValue> = headers.get_all(name).into_iter().collect();
    match &lines[..] {
        [] => None,
        [line] if line.as_bytes().trim_ascii() == b"*" => Some(Tags::Any),
        lines => Some(Tags::Listed(lines.iter().flat_map(|line| listed(line.as_bytes())).collect())),
    }
}

/// The tags of one line. A comma inside quotes is part of a tag.
fn listed(line: &[u8]) -> Vec<(bool, &[u8])> {
    let mut tags = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.iter().position(|byte| !b" \t,".contains(byte)) {
        rest = &rest[at..];
        let (is_weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let end = quoted.strip_prefix(b"\"").and_then(|inner| inner.iter().position(|&byte| byte == b'"'));
        if let Some(end) = end {
            let (tag, after) = quoted.split_at(end + 2);
            tags.push((is_weak, tag));
            rest = after;
        } else {
            let comma = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
            rest = &rest[comma..];
        }
    }
    tags
}

/// The date in a header. A malformed or repeated one is ignored, as RFC 9110 requires.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).into_iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    httpdate::parse_http_date(line.to_str().ok()?).ok()
}

/// HTTP's dates have whole seconds.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn verdict(headers: &[(&str, &str)]) -> Verdict {
        let name = |name: &str| HeaderName::try_from(name).unwrap();
        let mut map = HeaderMap::new();
        for (header, value) in headers {
            map.append(name(header), HeaderValue::from_str(value).unwrap());
        }
        let modified = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
        of_read(&map, &Validators { etag: "\"a,b\"".to_owned(), modified })
    }

    #[test]
    fn tags_compare_strongly_or_weakly() {
        use Verdict::{Failed, NotModified, Serve};
        for (value, if_none_match, if_match) in [
            ("\"a,b\"", NotModified, Serve),
            ("W/\"a,b\"", NotModified, Failed),
            ("*", NotModified, Serve),
            (" \"x\" ,, \"a,b\"", NotModified, Serve),
            ("\"x\",W/\"y\" , W/\"a,b\"", NotModified, Failed),
            ("\"a\"", Serve, Failed),
            ("\"b\"", Serve, Failed),
            ("a,b", Serve, Failed),
            ("\"a,b", Serve, Failed),
            ("w/\"a,b\"", Serve, Failed),
            ("unquoted, \"a,b\"", NotModified, Serve),
            ("\"x\", *", Serve, Failed),
            ("", Serve, Failed),
        ] {
            assert_eq!(verdict(&[("if-none-match", value)]), if_none_match, "{value}");
            assert_eq!(verdict(&[("if-match", value)]), if_match, "{value}");
        }
        assert_eq!(verdict(&[("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")]), NotModified);
    }

    #[test]
    fn dates_have_whole_seconds_and_are_ignored_if_malformed() {
        use Verdict::{Failed, NotModified, Serve};
        for (date, if_modified_since, if_unmodified_since) in [
            (THEN, NotModified, Serve),
            ("Sunday, 06-Nov-94 08:49:37 GMT", NotModified, Serve),
            (BEFORE, Serve, Failed),
            ("yesterday", Serve, Serve),
            ("1994-11-06T08:49:37Z", Serve, Serve),
            ("", Serve, Serve),
        ] {
            assert_eq!(verdict(&[("if-modified-since", date)]), if_modified_since, "{date}");
            assert_eq!(verdict(&[("if-unmodified-since", date)]), if_unmodified_since, "{date}");
        }
        assert_eq!(verdict(&[("if-modified-since", THEN), ("if-modified-since", THEN)]), Serve);
    }

    #[test]
    fn tags_precede_dates_and_required_conditions_precede_the_rest() {
        use Verdict::{Failed, NotModified, Serve};
        assert_eq!(verdict(&[("if-none-match", "\"x\""), ("if-modified-since", THEN)]), Serve);
        assert_eq!(verdict(&[("if-match", "*"), ("if-unmodified-since", BEFORE)]), Serve);
        assert_eq!(verdict(&[("if-match", "\"x\""), ("if-none-match", "*")]), Failed);
        assert_eq!(verdict(&[("if-match", "*"), ("if-none-match", "*")]), NotModified);
        assert_eq!(verdict(&[("if-unmodified-since", BEFORE), ("if-modified-since", THEN)]), Failed);
    }
}
