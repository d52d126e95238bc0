//! Variables and quotes, much as a shell has them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use indexmap::IndexSet;

use crate::error::{DockerfileError, Result};
use crate::text::quote::go_quote;
use crate::text::shell_pattern;

/// `${a:-${b:-…}}` may go this deep.
const MAX_DEPTH: usize = 64;

/// Bytes that a word may become: more than that no vertex of a graph can hold.
pub(crate) const MAX_WORD: usize = 16 << 20;

/// Bytes that the variables of a stage may have together. Linux starts no program with more than 6 MiB of them.
const MAX_VARIABLES: usize = 8 << 20;

/// Where values of variables come from.
pub trait Variables {
    /// The value, none when it is not set.
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;

    /// Bytes of all values.
    fn bytes(&self) -> usize {
        0
    }
}

/// No variable is set.
#[derive(Debug, Clone, Copy)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// How words are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexer {
    /// The character that escapes.
    pub escape: char,
    /// Quotes stay in the text.
    pub raw_quotes: bool,
    /// Escape characters stay in the text.
    pub raw_escapes: bool,
    /// Quotes are characters like others.
    pub no_quotes: bool,
    /// Variables that are not set stay as they are written.
    pub skip_unset: bool,
}

/// A text with its variables replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// The variables that were set.
    pub matched: BTreeSet<String>,
    /// The variables that were not, in the order of the text.
    pub unmatched: IndexSet<String>,
}

impl Lexer {
    /// As instructions are read.
    pub fn new(escape: char) -> Self {
        Lexer { escape, raw_quotes: false, raw_escapes: false, no_quotes: false, skip_unset: false }
    }

    /// Replaces variables and takes quotes off.
    pub fn expand(&self, word: &str, variables: &dyn Variables) -> Result<Expanded> {
        let (text, found) = self.attempt(word, variables);
        Ok(Expanded { text: text?, ..found })
    }

    /// The same, with the variables that were met even if it fails. The text stands alone.
    pub fn attempt(&self, word: &str, variables: &dyn Variables) -> (Result<String>, Expanded) {
        if !word.contains(['$', '\'', '"', self.escape]) {
            return (Ok(without_mark(word).to_owned()), Expanded::default());
        }
        let mut walk = Walk::new(self, word, variables, false);
        let text = walk.check_variables().and_then(|()| walk.whole(word));
        let Walk { matched, unmatched, .. } = walk;
        (text, Expanded { text: String::new(), matched, unmatched })
    }

    /// The same, split where blanks are outside of quotes, after replacement.
    pub fn words(&self, word: &str, variables: &dyn Variables) -> Result<Vec<String>> {
        let mut walk = Walk::new(self, word, variables, true);
        walk.check_variables()?;
        walk.whole(word)?;
        let Walk { mut words, word, .. } = walk;
        if !word.is_empty() {
            words.push(word);
        }
        Ok(words)
    }
}

/// BuildKit takes a byte order mark off each word, as if a file began there.
fn without_mark(word: &str) -> &str {
    word.strip_prefix('\u{feff}').unwrap_or(word)
}

struct Walk<'a> {
    lexer: &'a Lexer,
    chars: Peekable<Chars<'a>>,
    variables: &'a dyn Variables,
    matched: BTreeSet<String>,
    unmatched: IndexSet<String>,
    depth: usize,
    split: bool,
    words: Vec<String>,
    word: String,
}

/// Text of a failure; the whole word is named once, at the outside.
type Step<T> = std::result::Result<T, String>;

impl<'a> Walk<'a> {
    fn new(lexer: &'a Lexer, word: &'a str, variables: &'a dyn Variables, split: bool) -> Self {
        Walk {
            lexer,
            chars: without_mark(word).chars().peekable(),
            variables,
            matched: BTreeSet::new(),
            unmatched: IndexSet::new(),
            depth: 0,
            split,
            words: Vec::new(),
            word: String::new(),
        }
    }

    /// Each line of a file can double what the lines before it have made.
    fn check_variables(&self) -> Result<()> {
        match self.variables.bytes() {
            0..=MAX_VARIABLES => Ok(()),
            bytes => Err(DockerfileError::user(format!(
                "the variables have {bytes} bytes, and may have {MAX_VARIABLES}: no program could be started with them"
            ))),
        }
    }

    fn whole(&mut self, word: &str) -> Result<String> {
        self.until(None, self.lexer.raw_escapes)
            .map_err(|error| DockerfileError::user(format!("failed to process {}: {error}", go_quote(word))))
    }

    /// Adds to the current word what blanks do not split.
    fn keep(&mut self, text: &str) {
        if self.split && self.depth == 1 {
            self.word.push_str(text);
        }
    }

    /// Adds to the current word; blanks end it.
    fn split_up(&mut self, text: &str) {
        if !self.split || self.depth != 1 {
            return;
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Step<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("variables are nested more than {MAX_DEPTH} deep"));
        }
        if self.depth > 1 {
            // In BuildKit a modifier forgets what its word has before it: of `8${A:-0}` only `0` is exposed.
            self.word.clear();
        }
        let mut out = String::new();
        while let Some(c) = self.chars.peek().copied() {
            if Some(c) == stop {
                self.chars.next();
                self.depth -= 1;
                return Ok(out);
            }
            within(out.len())?;
            match c {
                '$' => {
                    let value = self.dollar()?;
                    self.split_up(&value);
                    out.push_str(&value);
                }
                '\'' if !self.lexer.no_quotes => {
                    let value = self.single_quoted()?;
                    self.keep(&value);
                    out.push_str(&value);
                }
                '"' if !self.lexer.no_quotes => {
                    let value = self.double_quoted(raw_escapes)?;
                    self.keep(&value);
                    out.push_str(&value);
                }
                '<' => {
                    let value = self.heredoc_start();
                    self.keep(&value);
                    out.push_str(&value);
                }
                c if c == self.lexer.escape => {
                    self.chars.next();
                    let mut kept = String::new();
                    if raw_escapes {
                        kept.push(c);
                    }
                    kept.extend(self.chars.next());
                    self.keep(&kept);
                    out.push_str(&kept);
                }
                c => {
                    self.chars.next();
                    self.split_up(c.encode_utf8(&mut [0; 4]));
                    out.push(c);
                }
            }
        }
        within(out.len())?;
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => {
                self.depth -= 1;
                Ok(out)
            }
        }
    }

    fn single_quoted(&mut self) -> Step<String> {
        let mut out = String::new();
        if let Some(quote) = self.chars.next().filter(|_| self.lexer.raw_quotes) {
            out.push(quote);
        }
        loop {
            match self.chars.next() {
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote".to_owned()
                    );
                }
                Some('\'') => {
                    if self.lexer.raw_quotes {
                        out.push('\'');
                    }
                    return Ok(out);
                }
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self, raw_escapes: bool) -> Step<String> {
        let mut out = String::new();
        if let Some(quote) = self.chars.next().filter(|_| self.lexer.raw_quotes) {
            out.push(quote);
        }
        loop {
            let Some(c) = self.chars.peek().copied() else {
                return Err("unexpected end of statement while looking for matching double-quote".to_owned());
            };
            if c == '$' {
                let value = self.dollar()?;
                out.push_str(&value);
                within(out.len())?;
                continue;
            }
            self.chars.next();
            if c == '"' {
                if self.lexer.raw_quotes {
                    out.push(c);
                }
                return Ok(out);
            }
            if c != self.lexer.escape {
                out.push(c);
                continue;
            }
            if raw_escapes {
                out.push(c);
            }
            // Before anything else the escape is a character like others.
            match self.chars.peek().copied() {
                None => {}
                Some(next) if next == '"' || next == '$' || next == self.lexer.escape => {
                    self.chars.next();
                    out.push(next);
                }
                Some(_) => out.push(c),
            }
        }
    }

    fn heredoc_start(&mut self) -> String {
        let mut out = String::from("<");
        self.chars.next();
        if self.chars.next_if_eq(&'<').is_some() {
            out.push('<');
            while let Some(c) = self.chars.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                out.push(c);
            }
        }
        out
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        match self.variables.get(name) {
            Some(value) => {
                if !self.matched.contains(name) {
                    self.matched.insert(name.to_owned());
                }
                Some(value.into_owned())
            }
            None => {
                self.unmatched.insert(name.to_owned());
                None
            }
        }
    }

    /// A name, a number, or one of the special parameters; empty when none is there.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek().copied() {
            Some(c) if is_digit(c) => {
                while let Some(c) = self.chars.next_if(|c| is_digit(*c)) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| is_letter(*c) || is_digit(*c) || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn dollar(&mut self) -> Step<String> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.lookup(&name) {
                Some(value) => value,
                None if self.lexer.skip_unset => format!("${name}"),
                None => String::new(),
            });
        }
        match self.chars.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            Some('}') => Ok(match self.lookup(&name) {
                Some(value) => value,
                None if self.lexer.skip_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => match self.chars.next() {
                Some(c @ ('+' | '-' | '?')) => self.default(&name, c, true),
                Some(c @ ('#' | '%')) => Err(format!("unsupported modifier (:{c}) in substitution")),
                Some(c) => {
                    let word = self.modifier_word(false)?;
                    match self.lookup(&name) {
                        None if self.lexer.skip_unset => Ok(format!("${{{name}:{c}{word}}}")),
                        _ => Err(format!("unsupported modifier (:{c}) in substitution")),
                    }
                }
                None => Err("syntax error: missing '}'".to_owned()),
            },
            Some(c @ ('+' | '-' | '?')) => self.default(&name, c, false),
            Some(c @ ('#' | '%')) => self.trim(&name, c),
            Some('/') => self.replace(&name),
            Some(c) => Err(format!("unsupported modifier ({c}) in substitution")),
            None => Err("unsupported modifier (\u{fffd}) in substitution".to_owned()),
        }
    }

    fn modifier_word(&mut self, raw_escapes: bool) -> Step<String> {
        match self.until(Some('}'), raw_escapes) {
            Err(_) if self.chars.peek().is_none() && self.depth <= MAX_DEPTH => {
                Err("syntax error: missing '}'".to_owned())
            }
            other => other,
        }
    }

    fn default(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Step<String> {
        let word = self.modifier_word(false)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.skip_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let set = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (modifier, set) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, _) if !word.is_empty() => Err(format!("{name}: {word}")),
            (_, _) if empty_is_unset && self.matched.contains(name) => {
                Err(format!("{name}: is not allowed to be empty"))
            }
            (_, _) => Err(format!("{name}: is not allowed to be unset")),
        }
    }

    fn trim(&mut self, name: &str, modifier: char) -> Step<String> {
        let word = self.modifier_word(true)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.skip_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let value = value.unwrap_or_default();
        let (longest, pattern) = match word.strip_prefix(modifier) {
            Some(pattern) => (true, pattern),
            None => (false, word.as_str()),
        };
        let trimmed = match modifier {
            '#' => shell_pattern::trim_prefix(pattern, &value, longest),
            _ => shell_pattern::trim_suffix(pattern, &value, longest),
        };
        trimmed.map_err(|bad| format!("invalid pattern ({pattern}) in substitution: {}", bad.0))
    }

    fn replace(&mut self, name: &str) -> Step<String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = match self.until(Some('/'), true) {
            Err(_) if self.chars.peek().is_none() && self.depth <= MAX_DEPTH => {
                return Err("syntax error: missing '/' in ${}".to_owned());
            }
            other => other?,
        };
        let with = self.modifier_word(true)?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.skip_unset {
            return Ok(format!("${{{name}/{pattern}/{with}}}"));
        }
        let value = value.unwrap_or_default();
        // A match is at least a character or the end, and each `$` of the replacement may stand for all of the value.
        let each = with.len().saturating_add(with.matches('$').count().saturating_mul(value.len()));
        within(each.saturating_mul(if all { value.len() + 1 } else { 1 }))?;
        shell_pattern::replace(&pattern, &value, &with, all)
            .map_err(|bad| format!("invalid pattern ({pattern}) in substitution: {}", bad.0))
    }
}

/// Whether a name may have it: a letter, of any script.
fn is_letter(c: char) -> bool {
    c.is_alphabetic() && !is_other_number(c)
}

/// Likewise a digit.
fn is_digit(c: char) -> bool {
    c.is_numeric() && !is_other_number(c)
}

/// Numbers that are no digits: superscripts, fractions, Roman numerals, circled ones.
fn is_other_number(c: char) -> bool {
    matches!(c, '²' | '³' | '¹' | '¼'..='¾' | '\u{2070}'..='\u{2089}' | '\u{2150}'..='\u{218b}')
        || matches!(c, '\u{2460}'..='\u{24ff}' | '\u{2776}'..='\u{2793}')
}

/// Whether a text of so many bytes may go on.
fn within(bytes: usize) -> Step<()> {
    match bytes {
        0..=MAX_WORD => Ok(()),
        _ => Err(format!("with its variables it has more than {MAX_WORD} bytes")),
    }
}
