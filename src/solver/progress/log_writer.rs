use std::collections::VecDeque;
use std::io;

use tokio::time::Instant;

use super::VertexProgress;

/// Where output comes from; the numbers are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// How much of a step's output clients get; per stream. None is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes in all.
    pub size: Option<u64>,
    /// Bytes a second.
    pub speed: Option<u64>,
}

impl Default for LogLimits {
    /// BuildKit's: 2 MiB, 200 KiB a second.
    fn default() -> Self {
        LogLimits { size: Some(2 << 20), speed: Some(200 << 10) }
    }
}

impl LogLimits {
    /// From the values of `BUILDKIT_STEP_LOG_MAX_SIZE` and `BUILDKIT_STEP_LOG_MAX_SPEED`: -1 is
    /// no limit, what is no number leaves the default.
    pub fn from_values(size: Option<&str>, speed: Option<&str>) -> Self {
        let read = |text: Option<&str>, default: Option<u64>| match text.map(str::parse::<i32>) {
            Some(Ok(number)) => u64::try_from(number).ok(),
            _ => default,
        };
        let default = LogLimits::default();
        LogLimits { size: read(size, default.size), speed: read(speed, default.speed) }
    }
}

/// How much of clipped output is kept for the end, in bytes.
const TAIL: usize = 256 << 10;

/// Passes output on within the limits. What did not fit is not lost at once: the last 256 KiB
/// are passed on when the writer is dropped.
pub struct LogWriter {
    progress: VertexProgress,
    stream: Stream,
    limits: LogLimits,
    created: Instant,
    taken: u64,
    clipping: bool,
    tail: Option<VecDeque<u8>>,
}

impl LogWriter {
    pub(super) fn new(progress: VertexProgress, stream: Stream, limits: LogLimits) -> Self {
        let created = Instant::now();
        LogWriter { progress, stream, limits, created, taken: 0, clipping: false, tail: None }
    }

    /// How much may have been passed on by now, and whether speed is what limits it.
    fn allowed(&self) -> (Option<u64>, bool) {
        let seconds = self.created.elapsed().as_secs_f64().ceil() as u64;
        let by_speed = self.limits.speed.map(|speed| seconds * speed);
        match (by_speed, self.limits.size) {
            (Some(speed), Some(size)) if speed <= size => (Some(speed), true),
            // Who wants any amount does not want it clipped for coming fast either.
            (_, size) => (size, false),
        }
    }

    fn keep(&mut self, text: &[u8]) {
        let tail = self.tail.get_or_insert_with(VecDeque::new);
        let text = &text[text.len().saturating_sub(TAIL)..];
        let excess = (tail.len() + text.len()).saturating_sub(TAIL);
        tail.drain(..excess);
        tail.extend(text);
    }

    /// Takes some output.
    pub fn take(&mut self, text: &[u8]) {
        let (allowed, by_speed) = self.allowed();
        let length = text.len() as u64;
        let room = allowed.map_or(length, |allowed| allowed.saturating_sub(self.taken).min(length));
        self.taken += length;
        if room < length || self.tail.is_some() {
            self.keep(text);
        }
        let mut passed = text[..room as usize].to_vec();
        if room == length {
            self.clipping = false;
        } else if !self.clipping {
            self.clipping = true;
            let limit = if by_speed { self.limits.speed } else { self.limits.size };
            let limit = bytes_text(limit.unwrap_or_default());
            let per = if by_speed { "/s" } else { "" };
            let note = format!("\n[output clipped, log limit {limit}{per} reached]\n");
            passed.extend_from_slice(note.as_bytes());
        }
        self.progress.log(self.stream, &passed);
    }
}

/// As BuildKit writes it: `2MiB`, `200KiB`.
fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{value}{unit}");
        }
        value /= 1024.0;
    }
    format!("{value}GiB")
}

impl io::Write for LogWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.take(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if let Some(tail) = self.tail.take() {
            self.progress.log(self.stream, &Vec::from(tail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn any_size_means_any_speed() {
        let speed = LogLimits::default().speed;
        for (size, given, allowed) in [
            (Some("-1"), None, (None, false)),
            (Some("-1"), Some("10"), (None, false)),
            (Some("1000"), Some("-1"), (Some(1000), false)),
            (Some("1000"), None, (Some(1000), false)),
            (None, None, (speed, true)),
        ] {
            let limits = LogLimits::from_values(size, given);
            let writer = LogWriter::new(VertexProgress::unheard("step"), Stream::Stdout, limits);
            // In the first second.
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
            assert_eq!(writer.allowed(), allowed, "{size:?} {given:?}");
        }
    }
}
