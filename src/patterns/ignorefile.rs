//! Ignore files such as `.dockerignore`.

use crate::clean_path;

/// The patterns of an ignore file: lines that begin with `#` are comments, a byte order mark is
/// dropped, patterns are trimmed and cleaned, and a leading `/` means nothing.
pub fn parse_ignore_file(text: &[u8]) -> Vec<String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text);
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pattern).collect()
}

fn pattern(line: &str) -> Option<String> {
    let line = line.trim();
    let (bang, path) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if line.is_empty() {
        return None;
    }
    if path.is_empty() {
        return Some(bang.to_string());
    }
    let clean = clean_path(path);
    let relative = if clean.len() > 1 { clean.strip_prefix('/').unwrap_or(&clean) } else { &clean };
    Some(format!("{bang}{relative}"))
}
