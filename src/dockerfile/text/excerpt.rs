//! Lines of a file with those around them.

use crosskit_api::pb;

use crate::error::Lines;

/// The lines, marked, with a few around them.
pub fn excerpt(file: &pb::SourceInfo, at: Lines) -> String {
    let text = String::from_utf8_lossy(&file.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let (first, last) = (at.first as usize, (at.last.max(at.first) as usize).min(lines.len()));
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let (mut start, mut end) = (first, last);
    let wanted = if first == last { 4 } else { 2 };
    let mut around = 0;
    while around < wanted {
        if start > 1 {
            start -= 1;
            around += 1;
        }
        if end != lines.len() {
            end += 1;
            around += 1;
        }
        around += 1;
    }
    const RULE: &str = "--------------------\n";
    let mut out = format!("{}:{first}\n{RULE}", file.filename);
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        out.push_str(&format!(" {number:>3} | {mark} {}\n", lines[number - 1]));
    }
    out + RULE
}
