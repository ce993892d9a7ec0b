//! The trace of a run: always a hash, and text on demand.

use std::fmt::Write as _;

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: TraceHash,
    lines: Option<Vec<TraceLine>>,
}

/// An event of a trace, as text.
#[derive(Clone, Debug)]
pub struct TraceLine {
    /// The simulated time, in microseconds.
    pub at_us: u64,
    /// The event.
    pub text: String,
}

impl std::fmt::Display for TraceLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>4}.{:06} {}", self.at_us / 1_000_000, self.at_us % 1_000_000, self.text)
    }
}

/// The kind of an event, for the hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceKind {
    /// A node sends a message.
    Send = 1,
    /// A message arrives, or is lost in flight.
    Deliver = 2,
    /// A store command starts.
    Store = 3,
    /// A store command has ended.
    Stored = 4,
    /// A client sends a request.
    Ask = 5,
    /// A client gets a response.
    Reply = 6,
    /// A fault strikes or ends.
    Fault = 7,
    /// A node reports an event.
    Report = 8,
}

impl Trace {
    /// A trace with text.
    pub fn readable() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// Whether the text is kept.
    pub const fn is_readable(&self) -> bool {
        self.lines.is_some()
    }

    /// Records an event. `bytes` distinguishes it for the hash, `text` describes it. `text` is called only if the text is kept.
    pub fn note(&mut self, at_us: u64, kind: TraceKind, bytes: &[&[u8]], text: impl FnOnce() -> String) {
        self.hash.word(at_us << 4 | kind as u64);
        for part in bytes {
            self.hash.bytes(part);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(TraceLine { at_us, text: text() });
        }
    }

    /// The hash of all events so far.
    pub const fn hash(&self) -> u64 {
        self.hash.0
    }

    /// The events, if the text is kept.
    pub fn lines(&self) -> &[TraceLine] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// The whole text, if it is kept.
    pub fn text(&self) -> String {
        self.lines().iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{line}");
            text
        })
    }
}

/// A fast hash. It distinguishes runs, and is not cryptographic.
#[derive(Clone, Copy, Debug, Default)]
struct TraceHash(u64);

impl TraceHash {
    const fn word(&mut self, word: u64) {
        // The multiplier of splitmix64: odd, with well distributed bits.
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
            trace.note(*at, TraceKind::Send, &[bytes], || unreachable!("the text is not kept"));
        }
        trace.hash()
    }

    #[test]
    fn every_part_of_an_event_changes_the_hash() {
        let base = hash(&[(1, b"a"), (2, b"b")]);
        assert_ne!(base, hash(&[(2, b"b"), (1, b"a")]));
        assert_ne!(base, hash(&[(1, b"a"), (3, b"b")]));
        assert_ne!(base, hash(&[(1, b"a"), (2, b"c")]));
        assert_ne!(hash(&[(1, b"a\0")]), hash(&[(1, b"a")]));
    }
}
