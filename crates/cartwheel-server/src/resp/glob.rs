//! Patterns as Redis has them: `*`, `?`, `[abc]`, `[^a]`, `[a-z]`, and `\` before a character that stands for itself.

/// Whether `text` matches `pattern`. It takes time in proportion to the product of their lengths at most.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last `*`, and where its match may be extended to.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
        } else if let Some(next) = one(pattern, p, text[t]) {
            (p, t) = (next, t + 1);
        } else if let Some((after, from)) = star {
            (p, t) = (after, from + 1);
            star = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Where the pattern goes on if its part at `at` matches `byte`.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match (*pattern.get(at)?, pattern.get(at + 1)) {
        (b'?', _) => Some(at + 1),
        (b'[', _) => class(pattern, at + 1, byte),
        (b'\\', Some(&escaped)) => (escaped == byte).then_some(at + 2),
        (literal, _) => (literal == byte).then_some(at + 1),
    }
}

/// As [`one`], for a class of characters that begins at `at`. A class without an end reaches to the end of the pattern.
fn class(pattern: &[u8], mut at: usize, byte: u8) -> Option<usize> {
    let is_negated = pattern.get(at) == Some(&b'^');
    at += usize::from(is_negated);
    let mut is_in = false;
    let end = loop {
        match pattern[at.min(pattern.len())..] {
            [] => break at,
            [b']', ..] => break at + 1,
            [b'\\', escaped, ..] => {
                is_in |= escaped == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                is_in |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                is_in |= one == byte;
                at += 1;
            }
        }
    };
    (is_in != is_negated).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hxllo", false),
            (r"h[\]]llo", "h]llo", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("a[", "a", false),
            ("[a", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_end_soon() {
        let pattern = b"a*".repeat(1_000);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &[b'a'; 10_000]));
    }
}
