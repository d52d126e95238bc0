//! Values as Go prints them, for texts that are part of an image's history or of messages.

use std::fmt::Write as _;
use std::time::Duration;

/// A text in double quotes: `%q`.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            // Writing to a String cannot fail.
            _ if c.is_ascii() => drop(write!(out, "\\x{:02x}", c as u32)),
            _ if printable(c) => out.push(c),
            _ if c as u32 > 0xffff => drop(write!(out, "\\U{:08x}", c as u32)),
            _ => drop(write!(out, "\\u{:04x}", c as u32)),
        }
    }
    out.push('"');
    out
}

/// Whether Go shows a character as it is: letters, marks, numbers, punctuation and symbols.
fn printable(c: char) -> bool {
    // Behind another character, Rust escapes what is not printable, and nothing else beyond ASCII.
    let pair: String = ['a', c].iter().collect();
    pair.escape_debug().count() == 2
}

/// A list of texts in quotes: `%q` of a list.
pub fn go_quote_list(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| go_quote(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// A duration: `1m30s`, `1.5s`, `250ms`, `0s`.
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let fraction = |nanos: u128, unit: u128| {
        let whole = nanos / unit;
        let rest = nanos % unit;
        let width = unit.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        match digits.trim_end_matches('0') {
            "" => whole.to_string(),
            digits => format!("{whole}.{digits}"),
        }
    };
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
            let minutes = nanos / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_does() {
        assert_eq!(go_quote("a\"b\\\n\u{1}é\u{200b}\u{1f600}"), "\"a\\\"b\\\\\\n\\x01é\\u200b\u{1f600}\"");
        assert_eq!(go_quote("e\u{301}\u{7f}"), "\"e\u{301}\\x7f\"");
        assert_eq!(go_quote_list(&["a".into(), "b c".into()]), "[\"a\" \"b c\"]");
    }

    #[test]
    fn durations_are_printed_as_go_does() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), want);
        }
    }
}
