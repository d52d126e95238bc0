//! JSON as Go's encoder writes it, for the error details that travel as JSON.

use serde::Serialize;
use std::io;

/// Encodes any value with Go's escaping: `<`, `>`, `&`, U+2028 and U+2029 become `\u` escapes.
///
/// # Errors
/// As serde_json: a map with keys that aren't strings, or a `Serialize` that fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoEscapes))?;
    Ok(out)
}

/// Writes strings the way Go's encoding/json does.
struct GoEscapes;

impl serde_json::ser::Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut from = 0;
        for (at, found) in fragment.char_indices() {
            let escape = match found {
                '<' => "\\u003c",
                '>' => "\\u003e",
                '&' => "\\u0026",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            out.write_all(&fragment.as_bytes()[from..at])?;
            out.write_all(escape.as_bytes())?;
            from = at + found.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[from..])
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn markup_is_escaped() {
        assert_eq!(super::to_vec("a <b> && \"c\"").unwrap(), br#""a \u003cb\u003e \u0026\u0026 \"c\"""#);
    }
}
