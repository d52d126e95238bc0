//! The lines of a file that an error is about.

use crosskit_api::details::Source;
use crosskit_api::pb::Range;
use std::fmt::Write as _;

/// Lines shown around what failed.
const AROUND_ONE: usize = 4;
const AROUND_SEVERAL: usize = 2;

/// The lines around the error, each failing one marked, as in
///
/// ```text
/// Dockerfile:7
/// --------------------
///    6 |     FROM build AS fail
///    7 | >>> RUN exit 7
/// --------------------
/// ```
///
/// or nothing if the error says no place.
pub(crate) fn excerpt(source: &Source) -> Option<String> {
    let info = source.info.as_ref()?;
    let text = String::from_utf8_lossy(&info.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let places: Vec<(usize, usize)> = source.ranges.iter().map(bounds).collect();
    let first = places.iter().map(|p| p.0).min()?;
    let last = places.iter().map(|p| p.1).max()?.min(lines.len());
    if first < 1 || first > lines.len() {
        return None;
    }
    let (mut from, mut to) = (first, last);
    // Context goes above and below in turns; a turn at the file's edge is spent on one side.
    let wanted = if first == last { AROUND_ONE } else { AROUND_SEVERAL };
    let mut taken = 0;
    while taken < wanted {
        if from > 1 {
            from -= 1;
            taken += 1;
        }
        if to != lines.len() {
            to += 1;
            taken += 1;
        }
        taken += 1;
    }
    let mut out = format!("{}:{first}\n--------------------\n", info.filename);
    for number in from..=to {
        let mark = if places.iter().any(|(a, b)| (*a..=*b).contains(&number)) { ">>>" } else { "   " };
        // Writing into a string does not fail.
        let _ = writeln!(out, " {number:3} | {mark} {}", lines[number - 1]);
    }
    out.push_str("--------------------\n");
    Some(out)
}

/// First and last line; an end before the start, or none, stands for the start.
fn bounds(range: &Range) -> (usize, usize) {
    let line = |position: Option<&crosskit_api::pb::Position>| {
        usize::try_from(position.map_or(0, |p| p.line)).unwrap_or(0)
    };
    let start = line(range.start.as_ref());
    (start, line(range.end.as_ref()).max(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::pb::{Position, SourceInfo};

    fn source(lines: usize, ranges: &[(i32, i32)]) -> Source {
        let position = |line| Some(Position { line, character: 0 });
        Source {
            info: Some(SourceInfo {
                filename: "Dockerfile".into(),
                data: (1..=lines).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n").into_bytes(),
                ..Default::default()
            }),
            ranges: ranges.iter().map(|(a, b)| Range { start: position(*a), end: position(*b) }).collect(),
        }
    }

    #[test]
    fn the_failing_line_stands_among_its_neighbours() {
        let rule = "--------------------\n";
        assert_eq!(
            excerpt(&source(9, &[(7, 7)])).unwrap(),
            format!(
                "Dockerfile:7\n{rule}   5 |     line 5\n   6 |     line 6\n   7 | >>> line 7\n   8 |     line 8\n   9 |     line 9\n{rule}"
            )
        );
        assert_eq!(
            excerpt(&source(9, &[(1, 2), (4, 0)])).unwrap(),
            format!(
                "Dockerfile:1\n{rule}   1 | >>> line 1\n   2 | >>> line 2\n   3 |     line 3\n   4 | >>> line 4\n   5 |     line 5\n{rule}"
            )
        );
    }

    #[test]
    fn places_outside_of_the_file_show_nothing() {
        assert_eq!(excerpt(&source(3, &[])), None);
        assert_eq!(excerpt(&source(3, &[(0, 0)])), None);
        assert_eq!(excerpt(&source(3, &[(9, 9)])), None);
        assert_eq!(excerpt(&Source::default()), None);
    }
}
