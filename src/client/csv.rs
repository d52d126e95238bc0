//! Options of the form `type=image,"name=a,b"`: one line of comma-separated values.

use crate::error::ClientError;
use std::collections::BTreeMap;

/// Splits a line at `comma`. A field in double quotes may hold commas, and quotes if doubled.
///
/// # Errors
/// A quote where none may be, told with its column.
pub(crate) fn split(line: &str, comma: char) -> Result<Vec<String>, ClientError> {
    let bad = |at: usize, what: &str| {
        ClientError::invalid(format!("parse error on line 1, column {}: {what}", at + 1))
    };
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let at = line.len() - rest.len();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut tail = quoted;
            loop {
                let position = line.len() - tail.len();
                let Some(quote) = tail.find('"') else {
                    return Err(bad(line.len(), "extraneous or missing \" in quoted-field"));
                };
                field.push_str(&tail[..quote]);
                tail = &tail[quote + 1..];
                if let Some(after) = tail.strip_prefix('"') {
                    field.push('"');
                    tail = after;
                } else if tail.is_empty() || tail.starts_with(comma) {
                    break;
                } else {
                    return Err(bad(position + quote, "extraneous or missing \" in quoted-field"));
                }
            }
            fields.push(field);
            match tail.strip_prefix(comma) {
                Some(next) => rest = next,
                None => return Ok(fields),
            }
            continue;
        }
        let end = rest.find(comma).unwrap_or(rest.len());
        if let Some(quote) = rest[..end].find('"') {
            return Err(bad(at + quote, "bare \" in non-quoted-field"));
        }
        fields.push(rest[..end].to_owned());
        match rest.get(end + comma.len_utf8()..) {
            Some(next) if end < rest.len() => rest = next,
            _ => return Ok(fields),
        }
    }
}

/// Reads `type=x,key=value,…`: the type and the other keys, in lower case.
///
/// # Errors
/// A field that is no pair.
pub(crate) fn typed(line: &str) -> Result<(String, BTreeMap<String, String>), ClientError> {
    let mut kind = String::new();
    let mut attrs = BTreeMap::new();
    for field in split(line, ',')? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(ClientError::invalid(format!("invalid value {field}")));
        };
        match key.to_lowercase().as_str() {
            "type" => kind = value.to_owned(),
            key => {
                attrs.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    Ok((kind, attrs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        assert_eq!(split(r#"type=image,"name=a,b",c="#, ',').unwrap(), ["type=image", "name=a,b", "c="]);
        assert_eq!(split(r#""a""b""#, ',').unwrap(), ["a\"b"]);
        assert_eq!(split("", ',').unwrap(), [""]);
        assert_eq!(split("a,", ',').unwrap(), ["a", ""]);
    }

    #[test]
    fn stray_quotes_are_told_with_their_column() {
        let error = |line: &str| split(line, ',').unwrap_err().to_string();
        assert_eq!(
            error(r#"type=image,a"b=c"#),
            r#"parse error on line 1, column 13: bare " in non-quoted-field"#
        );
        assert_eq!(
            error(r#"type=image,"a"b=c"#),
            r#"parse error on line 1, column 14: extraneous or missing " in quoted-field"#
        );
        assert_eq!(
            error(r#"type=image,"a"#),
            r#"parse error on line 1, column 14: extraneous or missing " in quoted-field"#
        );
    }
}
