//! What happened, in order: always as a hash, as text only when somebody wants to read it.

use std::fmt::Write as _;

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: TraceHash,
    lines: Option<Vec<Line>>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Line {
    /// When, in microseconds of simulated time.
    pub at_us: u64,
    /// What.
    pub text: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>4}.{:06} {}", self.at_us / 1_000_000, self.at_us % 1_000_000, self.text)
    }
}

/// Kinds of things that happen, for the hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A message leaves a node.
    Send = 1,
    /// A message arrives, or is dropped on the way.
    Deliver = 2,
    /// A store command begins.
    Store = 3,
    /// A store command has ended.
    Stored = 4,
    /// A client asks.
    Ask = 5,
    /// A client is answered.
    Reply = 6,
    /// Something strikes, or ends.
    Fault = 7,
    /// A node reports.
    Report = 8,
}

impl Trace {
    /// A trace that keeps its text.
    pub fn readable() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// Whether the text is kept.
    pub const fn is_readable(&self) -> bool {
        self.lines.is_some()
    }

    /// Notes that something happened. `bytes` tells it apart for the hash, `text` for a reader; `text` is called only if the
    /// text is kept.
    pub fn note(&mut self, at_us: u64, kind: Kind, bytes: &[&[u8]], text: impl FnOnce() -> String) {
        self.hash.word(at_us << 4 | kind as u64);
        for part in bytes {
            self.hash.bytes(part);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at_us, text: text() });
        }
    }

    /// A number that differs for different runs.
    pub const fn hash(&self) -> u64 {
        self.hash.0
    }

    /// The text, if it was kept.
    pub fn lines(&self) -> &[Line] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// The whole text, if it was kept.
    pub fn text(&self) -> String {
        self.lines().iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }
}

/// A quick hash. It tells runs apart; it protects nothing.
#[derive(Clone, Copy, Debug, Default)]
struct TraceHash(u64);

impl TraceHash {
    const fn word(&mut self, word: u64) {
        // The multiplier of splitmix64: odd, with bits well spread.
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 ^= self.0 >> 31;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(notes: &[(u64, &[u8])]) -> u64 {
        let mut trace = Trace::default();
        for (at, bytes) in notes {
            trace.note(*at, Kind::Send, &[bytes], || unreachable!("the text is not kept"));
        }
        trace.hash()
    }

    #[test]
    fn every_part_counts() {
        let base = hash(&[(1, b"a"), (2, b"b")]);
        assert_ne!(base, hash(&[(2, b"b"), (1, b"a")]));
        assert_ne!(base, hash(&[(1, b"a"), (3, b"b")]));
        assert_ne!(base, hash(&[(1, b"a"), (2, b"c")]));
        assert_ne!(hash(&[(1, b"a\0")]), hash(&[(1, b"a")]));
    }
}
