//! Patterns of `${name#pattern}` and its siblings: `*` and `?`, no classes.

use regex::Regex;

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern(pub String);

fn compile(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, BadPattern> {
    let mut out = String::from(if anchored { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    let literal = |c: char| regex::escape(c.encode_utf8(&mut [0; 4]));
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            '\\' => match chars.peek().copied() {
                // Escaped because of the braces around, not for the pattern.
                Some('}' | '/') => {}
                Some(next @ ('*' | '?' | '\\')) => {
                    chars.next();
                    out.push_str(&literal(next));
                }
                next => {
                    let next = next.unwrap_or(char::REPLACEMENT_CHARACTER);
                    return Err(BadPattern(format!("invalid escape '\\{next}'")));
                }
            },
            c => out.push_str(&literal(c)),
        }
    }
    Regex::new(&out).map_err(|error| BadPattern(error.to_string()))
}

/// The value without the shortest or longest beginning that matches.
pub fn trim_prefix(pattern: &str, value: &str, longest: bool) -> Result<String, BadPattern> {
    let found = compile(pattern, longest, true)?.find(value).map_or(0, |found| found.end());
    Ok(value[found..].to_owned())
}

/// The value without the shortest or longest end that matches.
pub fn trim_suffix(pattern: &str, value: &str, longest: bool) -> Result<String, BadPattern> {
    let backwards: String = value.chars().rev().collect();
    let rest = trim_prefix(&reverse(pattern), &backwards, longest)?;
    Ok(rest.chars().rev().collect())
}

/// A pattern from its end to its beginning, where escapes stay in front of what they escape.
fn reverse(pattern: &str) -> String {
    let mut units: Vec<String> = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next)) => {
                units.push(format!("\\{next}"));
                chars.next();
            }
            _ => units.push(c.to_string()),
        }
    }
    units.reverse();
    units.concat()
}

/// The value with the first or each match replaced.
pub fn replace(pattern: &str, value: &str, with: &str, all: bool) -> Result<String, BadPattern> {
    let regex = compile(pattern, true, false)?;
    if all {
        return Ok(regex.replace_all(value, with).into_owned());
    }
    Ok(match regex.find(value) {
        Some(found) => [&value[..found.start()], with, &value[found.end()..]].concat(),
        None => value.to_owned(),
    })
}
