//! The times during which a step ran. A step may run several times, and a group's members overlap.

use std::collections::BTreeMap;

/// Nanoseconds since 1970.
pub(crate) type Nanos = i64;

/// A time with a start and, once it is over, an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Nanos,
    pub(crate) stop: Option<Nanos>,
}

impl Span {
    /// How long it is or has been until `now`.
    pub(crate) fn length(&self, now: Nanos) -> Nanos {
        self.stop.unwrap_or(now).saturating_sub(self.start)
    }
}

/// All times of one step, by start; a later report of the same start replaces the earlier one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(BTreeMap<Nanos, Option<Nanos>>);

impl Spans {
    /// Notes a time and says whether that is news.
    pub(crate) fn note(&mut self, start: Nanos, stop: Option<Nanos>) -> bool {
        self.0.insert(start, stop) != Some(stop)
    }

    /// The times with overlapping ones joined, in order.
    pub(crate) fn merged(&self) -> Vec<Span> {
        let mut out: Vec<Span> = Vec::new();
        for (&start, &stop) in &self.0 {
            match out.last_mut() {
                // What has no end yet swallows all that follows.
                Some(Span { stop: None, .. }) => break,
                Some(Span { stop: Some(end), .. }) if *end >= start => match stop {
                    Some(stop) => *end = (*end).max(stop),
                    None => {
                        if let Some(last) = out.last_mut() {
                            last.stop = None;
                        }
                    }
                },
                _ => out.push(Span { start, stop }),
            }
        }
        out
    }

    /// The last of the joined times.
    pub(crate) fn last(&self) -> Option<Span> {
        // Steps nearly always have one or two times, so that joining them costs nothing.
        self.merged().pop()
    }

    /// Whether it has begun.
    pub(crate) fn started(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether it has ended, and when.
    pub(crate) fn completed(&self) -> Option<Nanos> {
        self.last().and_then(|span| span.stop)
    }

    /// The sum of all times, in seconds.
    pub(crate) fn seconds(&self, now: Nanos) -> f64 {
        self.merged().iter().map(|span| span.length(now) as f64 / 1e9).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(spans: &[(Nanos, Option<Nanos>)]) -> Vec<(Nanos, Option<Nanos>)> {
        let mut all = Spans::default();
        for (start, stop) in spans {
            all.note(*start, *stop);
        }
        all.merged().iter().map(|s| (s.start, s.stop)).collect()
    }

    #[test]
    fn overlapping_times_are_joined() {
        assert_eq!(merged(&[(5, Some(6)), (1, Some(3)), (2, Some(4))]), [(1, Some(4)), (5, Some(6))]);
        assert_eq!(merged(&[(1, Some(10)), (2, Some(4)), (10, Some(11))]), [(1, Some(11))]);
        assert_eq!(merged(&[(1, Some(3)), (2, None), (5, Some(6))]), [(1, None)]);
        assert_eq!(merged(&[(1, None), (2, Some(4))]), [(1, None)]);
        assert_eq!(merged(&[(1, None), (1, Some(4))]), [(1, Some(4))]);
    }

    #[test]
    fn lengths_add_up() {
        let mut spans = Spans::default();
        spans.note(0, Some(1_500_000_000));
        spans.note(2_000_000_000, None);
        assert_eq!(spans.seconds(3_000_000_000), 2.5);
        assert_eq!(spans.completed(), None);
    }
}
