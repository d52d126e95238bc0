//! What a step wrote, line by line, each with its time since the step began.

use super::spans::Nanos;
use std::collections::VecDeque;

/// Lines that nobody has forgotten yet. The last one may still be open, without its end.
#[derive(Debug, Default)]
pub(crate) struct StepLog {
    lines: VecDeque<Vec<u8>>,
    /// The number of the first line that is kept.
    first: usize,
    open: bool,
    bytes: usize,
}

impl StepLog {
    /// Adds output written `since_start` after the step began.
    pub(crate) fn write(&mut self, since_start: Nanos, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n');
            let piece = &rest[..end.unwrap_or(rest.len())];
            match self.lines.back_mut() {
                Some(line) if self.open => line.extend_from_slice(piece),
                _ => {
                    let mut line = stamp(since_start).into_bytes();
                    line.push(b' ');
                    line.extend_from_slice(piece);
                    self.bytes += line.len() - piece.len();
                    self.lines.push_back(line);
                }
            }
            self.bytes += piece.len();
            self.open = end.is_none();
            rest = end.map_or(&[], |end| &rest[end + 1..]);
        }
    }

    /// The lines from number `from` on, each with its number and whether its end has come.
    pub(crate) fn since(&self, from: usize) -> impl Iterator<Item = (usize, &[u8], bool)> {
        let skip = from.saturating_sub(self.first);
        let last = self.next().saturating_sub(1);
        self.lines.iter().enumerate().skip(skip).map(move |(at, line)| {
            let number = self.first + at;
            (number, line.as_slice(), !(self.open && number == last))
        })
    }

    /// All lines that are kept.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(Vec::as_slice)
    }

    /// The number that the next line gets.
    pub(crate) fn next(&self) -> usize {
        self.first + self.lines.len()
    }

    /// Whether the last line still waits for its end.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Drops lines before number `before`, yet keeps the last `keep`.
    pub(crate) fn forget(&mut self, before: usize, keep: usize) {
        while self.first < before && self.lines.len() > keep {
            self.drop_first();
        }
    }

    /// Drops old lines until at most `limit` bytes are left.
    pub(crate) fn limit(&mut self, limit: usize) {
        while self.bytes > limit && self.lines.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= line.len();
            self.first += 1;
        }
    }
}

/// Seconds with as many decimals as make sense at that size.
fn stamp(since_start: Nanos) -> String {
    let seconds = since_start as f64 / 1e9;
    let decimals = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(log: &StepLog) -> Vec<String> {
        log.since(0)
            .map(|(n, line, whole)| {
                format!("{n}{} {}", if whole { "" } else { "…" }, String::from_utf8_lossy(line))
            })
            .collect()
    }

    #[test]
    fn pieces_become_lines() {
        let mut log = StepLog::default();
        log.write(1_234_000_000, b"a\nb");
        assert_eq!(text(&log), ["0 1.234 a", "1… 1.234 b"]);
        log.write(12_345_000_000, b"c\n\n");
        assert_eq!(text(&log), ["0 1.234 a", "1 1.234 bc", "2 12.35 "]);
        log.write(123_450_000_000, b"z");
        assert!(log.is_open());
        log.forget(3, 2);
        assert_eq!(text(&log), ["2 12.35 ", "3… 123.5 z"]);
        log.limit(3);
        assert_eq!(text(&log), ["3… 123.5 z"]);
    }
}
