//! Patterns that the field's matchers read as regular expressions in more than their wildcards.
//!
//! Those matchers turn a line into a regular expression and escape most of what has a meaning there, but not `|`, not
//! `{2}`, and of a backslash they leave to the expression what it means in front of a letter. Such lines are rare; they
//! take this way, so that they select the same paths.

use regex::bytes::Regex;

/// The largest number that a repetition may have.
const MAX_REPEAT: u32 = 1000;

/// What the letters behind a backslash stand for.
const SETS: [(char, &str); 6] = [
    ('d', "[0-9]"),
    ('D', "[^0-9]"),
    ('s', "[\\t\\n\\x0C\\r ]"),
    ('S', "[^\\t\\n\\x0C\\r ]"),
    ('w', "[0-9A-Za-z_]"),
    ('W', "[^0-9A-Za-z_]"),
];
const CONTROLS: [(char, char); 6] =
    [('a', '\x07'), ('f', '\x0c'), ('n', '\n'), ('r', '\r'), ('t', '\t'), ('v', '\x0b')];
const PLACES: [(char, &str); 4] = [('b', "(?-u:\\b)"), ('B', "(?-u:\\B)"), ('A', "\\A"), ('z', "\\z")];
/// Names of sets within a class.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// Whether a pattern has something that only an expression can tell.
pub(crate) fn needed(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    let (mut before, mut in_class) = (None, false);
    while let Some(c) = chars.next() {
        match c {
            '|' => return true,
            '{' if chars.peek().is_some_and(char::is_ascii_digit) => return true,
            ':' if before == Some('[') => return true,
            '*' | '?' if in_class => return true,
            '^' if before.is_some() && !in_class => return true,
            '[' => in_class = true,
            ']' => in_class = false,
            '\\' => match chars.next() {
                Some(n) if n.is_ascii() && !n.is_ascii_alphanumeric() => {}
                _ => return true,
            },
            _ => {}
        }
        before = Some(c);
    }
    false
}

/// The expression of a pattern; none if it has no sense.
pub(crate) fn compile(pattern: &str) -> Option<Regex> {
    let expression = expression(pattern);
    let mut translation = Translation { rest: &expression, out: String::new(), last: Last::Nothing };
    while !translation.rest.is_empty() {
        translation.step()?;
    }
    Regex::new(&translation.out).ok()
}

/// As the field's matchers write it. Classes are nothing special to them: a star in one is a star.
fn expression(pattern: &str) -> String {
    let mut out = String::from("^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                out.push_str(if chars.peek().is_none() { ".*" } else { "(.*/)?" });
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '.' | '+' | '(' | ')' | '$' => out.extend(['\\', c]),
            '\\' => {
                out.push(c);
                out.extend(chars.next());
            }
            c => out.push(c),
        }
    }
    out + "$"
}

/// What was written last, for a repetition of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    One,
    Repetition,
}

struct Translation<'a> {
    rest: &'a str,
    out: String,
    last: Last,
}

impl Translation<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest.strip_prefix(text);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn put(&mut self, text: &str, last: Last) {
        self.out.push_str(text);
        self.last = last;
    }

    fn literal(&mut self, c: char) {
        self.put(&regex::escape(c.encode_utf8(&mut [0; 4])), Last::One);
    }

    fn step(&mut self) -> Option<()> {
        match self.next()? {
            c @ ('*' | '?') => {
                if self.last != Last::One {
                    return None;
                }
                self.put(if c == '*' { "*" } else { "?" }, Last::Repetition);
            }
            '(' => self.put("(?:", Last::Nothing),
            ')' => self.put(")", Last::One),
            '.' => self.put(".", Last::One),
            '|' => self.put("|", Last::Nothing),
            '^' => self.put("^", Last::One),
            '$' => self.put("$", Last::One),
            '[' => {
                let class = self.class()?;
                self.put(&class, Last::One);
            }
            '{' => self.repetition()?,
            '\\' => self.escape()?,
            c => self.literal(c),
        }
        Some(())
    }

    fn escape(&mut self) -> Option<()> {
        let c = self.next()?;
        if let Some((_, set)) = SETS.iter().find(|(letter, _)| *letter == c) {
            self.put(set, Last::One);
        } else if let Some((_, place)) = PLACES.iter().find(|(letter, _)| *letter == c) {
            self.put(place, Last::One);
        } else {
            self.literal(escaped(c)?);
        }
        Some(())
    }

    /// `{2}`, `{2,}`, `{2,3}`; anything else is a brace.
    fn repetition(&mut self) -> Option<()> {
        let counts = self.rest.split_once('}').and_then(|(inside, behind)| Some((counts(inside)?, behind)));
        let Some(((least, most), behind)) = counts else {
            self.literal('{');
            return Some(());
        };
        let backwards = most.is_some_and(|most| most < least);
        let too_many = least.max(most.unwrap_or(0)) > MAX_REPEAT;
        if self.last != Last::One || backwards || too_many {
            return None;
        }
        let inside = self.rest.len() - behind.len();
        let text = format!("{{{}", &self.rest[..inside]);
        self.rest = behind;
        self.put(&text, Last::Repetition);
        Some(())
    }

    /// A class from behind its `[`.
    fn class(&mut self) -> Option<String> {
        let mut out = String::from(if self.take("^") { "[^" } else { "[" });
        let mut first = true;
        while first || !self.take("]") {
            first = false;
            if let Some((name, behind)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]"))
            {
                if !NAMED.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return None;
                }
                out.push_str(&format!("[[:{name}:]]"));
                self.rest = behind;
                continue;
            }
            let set = SETS
                .iter()
                .find(|(letter, _)| self.rest.strip_prefix('\\').is_some_and(|r| r.starts_with(*letter)));
            if let Some((_, set)) = set {
                out.push_str(set);
                self.rest = &self.rest[2..];
                continue;
            }
            let from = self.class_char()?;
            let mut to = from;
            if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
                self.next();
                to = self.class_char()?;
            }
            if to < from {
                return None;
            }
            out.push_str(&format!("\\x{{{:X}}}-\\x{{{:X}}}", u32::from(from), u32::from(to)));
        }
        out.push(']');
        Some(out)
    }

    fn class_char(&mut self) -> Option<char> {
        match self.next()? {
            '\\' => {
                let c = self.next()?;
                escaped(c)
            }
            c => Some(c),
        }
    }
}

/// The character that a backslash and this one stand for.
fn escaped(c: char) -> Option<char> {
    if let Some((_, control)) = CONTROLS.iter().find(|(letter, _)| *letter == c) {
        return Some(*control);
    }
    (c.is_ascii() && !c.is_ascii_alphanumeric()).then_some(c)
}

fn counts(inside: &str) -> Option<(u32, Option<u32>)> {
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true if !text.is_empty() => Some(text.parse().unwrap_or(u32::MAX)),
        _ => None,
    };
    match inside.split_once(',') {
        None => number(inside).map(|n| (n, Some(n))),
        Some((least, "")) => Some((number(least)?, None)),
        Some((least, most)) => Some((number(least)?, Some(number(most)?))),
    }
}
