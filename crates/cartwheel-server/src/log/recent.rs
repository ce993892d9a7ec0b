//! The last lines of the log, in memory, for support.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How many lines are kept at most, ...
const LINES_MAX: usize = 1_000;
/// ... and how many bytes they have together at most. The oldest go first.
const BYTES_MAX: usize = 512 << 10;
/// Of a longer line, the beginning is kept.
const LINE_BYTES_MAX: usize = 8 << 10;

/// The last lines of one log.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Recent {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Kept { lines: VecDeque::new(), bytes: 0 }))
    }

    /// Keeps a line, without the codes that colour it on a terminal.
    pub(super) fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let line = without_colours(text.trim_end());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
    }

    /// The last `limit` lines, the oldest first.
    pub(super) fn last(&self, limit: usize) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().skip(kept.lines.len().saturating_sub(limit)).cloned().collect()
    }
}

/// A text without escape sequences that end in `m`.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest)));
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_no_more_than_fit() {
        let recent = Recent::new();
        for number in 0..3_000 {
            recent.push(format!("\u{1b}[2m12:00\u{1b}[0m line {number}\n").as_bytes());
        }
        assert_eq!(recent.last(2), ["12:00 line 2998", "12:00 line 2999"]);
        assert_eq!(recent.last(usize::MAX).len(), LINES_MAX);
        for _ in 0..200 {
            recent.push(&[b'x'; 3 * LINE_BYTES_MAX]);
        }
        let lines = recent.last(usize::MAX);
        assert_eq!((lines.len(), lines[0].len()), (BYTES_MAX / LINE_BYTES_MAX, LINE_BYTES_MAX));
    }
}
