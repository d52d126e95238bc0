//! Percent-encoding as signatures want it.

/// Encodes all but letters, digits and `-_.~` (RFC 3986 §2.3), and slashes where they are `kept`.
pub fn encode(text: &str, kept: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b'/' if kept => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A query, or the body of a form: names and values encoded, in order of the encoded names.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut encoded: Vec<_> =
        pairs.iter().map(|(name, value)| (encode(name, false), encode(value, false))).collect();
    encoded.sort();
    let encoded: Vec<String> = encoded.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    encoded.join("&")
}
