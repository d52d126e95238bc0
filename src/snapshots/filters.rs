//! The filters of `du` and `prune`, in the language of containerd's API.
//!
//! ```text
//! selectors := selector ("," selector)*        all of them must hold
//! selector  := field ("." field)* [("==" | "!=" | "~=") value]
//! field     := quoted | [A-Za-z_] [A-Za-z0-9_]*
//! value     := quoted | [^ ,"'/|]…
//! ```
//! Without an operator, a selector asks whether the field is there. `~=` searches by a regular
//! expression, which may also stand between slashes or bars. Of several filters, any suffices.

use regex::Regex;

/// Why a filter cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filters: parse error: {}: {reason}", shown(.input, *.at))]
pub struct FilterError {
    input: String,
    at: usize,
    reason: String,
}

/// The input with the place of the fault marked, as clients know it.
fn shown(input: &str, at: usize) -> String {
    match (input.get(..at), input.get(at..).and_then(|rest| rest.chars().next())) {
        (Some(before), Some(c)) => format!("[{before} >|{c}|< {}]", &input[at + c.len_utf8()..]),
        _ => format!("[{input}]"),
    }
}

/// What fields a thing has. None for a field that is absent; flags are present with an empty value.
pub trait Fields {
    /// The value of a field.
    fn field(&self, path: &[String]) -> Option<String>;
}

/// Several filters, of which any suffices; none of them lets everything pass.
#[derive(Debug, Clone, Default)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug, Clone)]
struct Selector {
    field: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    /// None for an expression that is malformed, which matches nothing.
    Matches(Option<Regex>),
}

impl Filters {
    /// Parses filters; an empty one lets everything pass.
    pub fn parse<S: AsRef<str>>(filters: impl IntoIterator<Item = S>) -> Result<Filters, FilterError> {
        let parse = |filter: S| Parser { input: filter.as_ref(), at: 0 }.selectors();
        filters.into_iter().map(parse).collect::<Result<_, _>>().map(Filters)
    }

    /// Whether a thing passes.
    pub fn matches(&self, thing: &impl Fields) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|selector| selector.holds(thing)))
    }
}

impl Selector {
    fn holds(&self, thing: &impl Fields) -> bool {
        let value = thing.field(&self.field);
        match (&self.test, value) {
            (Test::Present, value) => value.is_some(),
            (Test::Equal(wanted), Some(value)) => value == *wanted,
            (Test::Equal(_), None) => false,
            (Test::NotEqual(other), value) => value.unwrap_or_default() != *other,
            (Test::Matches(Some(regex)), Some(value)) => regex.is_match(&value),
            (Test::Matches(_), _) => false,
        }
    }
}

struct Parser<'a> {
    input: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn selectors(mut self) -> Result<Vec<Selector>, FilterError> {
        let mut all = Vec::new();
        if self.input.is_empty() {
            return Ok(all);
        }
        loop {
            all.push(self.selector()?);
            match self.peek() {
                None => return Ok(all),
                Some(',') => self.at += 1,
                Some(c) => return Err(self.error(self.at, format!("unexpected input: {c}"))),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, FilterError> {
        let mut field = vec![self.field()?];
        while self.peek() == Some('.') {
            self.at += 1;
            field.push(self.field()?);
        }
        self.skip_space();
        if matches!(self.peek(), None | Some(',')) {
            return Ok(Selector { field, test: Test::Present });
        }
        let at = self.at;
        let rest = &self.input[at..];
        let length = rest.find(|c| !"=!~".contains(c)).unwrap_or(rest.len());
        self.at += length;
        let test = match &rest[..length] {
            "==" => Test::Equal(self.value(false)?),
            "!=" => Test::NotEqual(self.value(false)?),
            "~=" => Test::Matches(Regex::new(&self.value(true)?).ok()),
            "" => return Err(self.error(at, r#"expected an operator ("=="|"!="|"~=")"#)),
            other => return Err(self.error(at, format!("unsupported operator {other:?}"))),
        };
        Ok(Selector { field, test })
    }

    fn field(&mut self) -> Result<String, FilterError> {
        self.skip_space();
        if let Some(quote @ ('"' | '\'')) = self.peek() {
            return self.quoted(quote);
        }
        let at = self.at;
        let rest = &self.input[at..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error(at, "expected field or quoted"));
        }
        self.at += length;
        Ok(rest[..length].to_string())
    }

    fn value(&mut self, regex: bool) -> Result<String, FilterError> {
        self.skip_space();
        match self.peek() {
            Some(quote @ ('"' | '\'')) => return self.quoted(quote),
            Some(quote @ ('/' | '|')) if regex => return self.quoted(quote),
            Some('/' | '|') => return Err(self.error(self.at, "invalid quote encountered")),
            _ => {}
        }
        let at = self.at;
        let rest = &self.input[at..];
        let length = rest.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(rest.len());
        if length == 0 {
            return Err(self.error(at, "expected value or quoted"));
        }
        self.at += length;
        Ok(rest[..length].to_string())
    }

    /// A value between quotes, with Go's escapes between `"` and `'`; in an expression between
    /// slashes or bars only the mark itself is escaped.
    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        let from = self.at;
        let mut text = String::new();
        let mut chars = self.input[from + 1..].char_indices();
        while let Some((offset, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at = from + 1 + offset + 1;
                    return Ok(text);
                }
                '\\' => {
                    let Some((_, escaped)) = chars.next() else { break };
                    match escaped {
                        c if c == quote || c == '\\' && matches!(quote, '"' | '\'') => text.push(c),
                        c if matches!(quote, '/' | '|') => text.extend(['\\', c]),
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        'a' => text.push('\x07'),
                        'b' => text.push('\x08'),
                        'f' => text.push('\x0c'),
                        'v' => text.push('\x0b'),
                        'x' | 'u' | 'U' => {
                            let digits = [('x', 2), ('u', 4), ('U', 8)]
                                .iter()
                                .find(|d| d.0 == escaped)
                                .map_or(2, |d| d.1);
                            let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                            let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits);
                            let c = code.and_then(char::from_u32);
                            text.push(c.ok_or_else(|| self.error(from, "unquoting failed: invalid syntax"))?);
                        }
                        _ => return Err(self.error(from, "illegal escape sequence")),
                    }
                }
                '\n' => break,
                c => text.push(c),
            }
        }
        Err(self.error(from, "quoted literal not terminated"))
    }

    fn peek(&self) -> Option<char> {
        self.input[self.at..].chars().next()
    }

    fn skip_space(&mut self) {
        let rest = &self.input[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, at: usize, reason: impl Into<String>) -> FilterError {
        FilterError { input: self.input.to_string(), at, reason: reason.into() }
    }
}

#[cfg(test)]
#[path = "filters_tests.rs"]
mod filters_tests;
