//! One glob, compiled to a small automaton that reads a path once.
//!
//! Every item of the pattern is one bit of the state; a step over a character moves all the bits
//! at once. So no pattern, however many stars it has, takes more than (length of the path) ×
//! (length of the pattern / 64) steps.

use crate::{Clean, PatternError, regular};

/// One position of the automaton.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    /// Exactly this character.
    Char(char),
    /// `?`: any character but `/`.
    One,
    /// `*`: any number of characters but `/`.
    Star,
    /// `[…]`.
    Class(Class),
    /// `**` in front of something: nothing, or anything that ends in `/`. Takes two positions,
    /// of which this is the entrance.
    Folders,
    /// The second position of [`Item::Folders`].
    FoldersLoop,
    /// `**` at the end: anything.
    Rest,
    /// A bare `^`, which the field's matchers leave to a regular expression: only true at the start.
    Start,
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn has(&self, c: char) -> bool {
        self.ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c)) != self.negated
    }
}

/// How a pattern's special characters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As the shell-like matcher of COPY sources: `*`, `?`, `[…]`, backslash.
    Shell,
    /// As ignore files: also `**`.
    Ignore,
}

/// A compiled glob.
///
/// ```
/// let glob = crosskit_patterns::Glob::new("/src/*.c").unwrap();
/// assert!(glob.matches("/src/a.c"));
/// assert!(!glob.matches("/src/lib/a.c"));
/// ```
#[derive(Debug, Clone)]
pub struct Glob {
    items: Vec<Item>,
    words: usize,
    /// For each ASCII character, the positions that it moves on from, `words` words each.
    advance: Vec<u64>,
    /// Likewise the positions that it stays in.
    stay: Vec<u64>,
    /// Positions that can be left without reading anything.
    skip: Vec<u64>,
    /// Positions that can be left two at a time without reading anything.
    skip_two: Vec<u64>,
}

impl Glob {
    /// Compiles a pattern with `*`, `?`, `[…]` and backslash, none of which cross a `/` but a class.
    pub fn new(pattern: &str) -> Result<Glob, PatternError> {
        Ok(Self::build(parse(pattern, Dialect::Shell)?))
    }

    pub(crate) fn ignore(pattern: &str) -> Result<Glob, PatternError> {
        Ok(Self::build(parse(pattern, Dialect::Ignore)?))
    }

    fn build(items: Vec<Item>) -> Glob {
        let words = items.len() / 64 + 1;
        let mut glob = Glob {
            words,
            advance: vec![0; words * 128],
            stay: vec![0; words * 128],
            skip: vec![0; words],
            skip_two: vec![0; words],
            items,
        };
        for (at, item) in glob.items.iter().enumerate() {
            let (word, bit) = (at / 64, 1u64 << (at % 64));
            for c in 0..128u8 {
                let (advance, stay) = step(item, c as char);
                let slot = c as usize * words + word;
                glob.advance[slot] |= if advance { bit } else { 0 };
                glob.stay[slot] |= if stay { bit } else { 0 };
            }
            match item {
                Item::Star | Item::Rest => glob.skip[word] |= bit,
                Item::Folders => {
                    glob.skip[word] |= bit;
                    glob.skip_two[word] |= bit;
                }
                _ => {}
            }
        }
        glob
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let path = path.as_ref();
        if self.words == 1 { self.run_narrow(path) } else { self.run_wide(path) }
    }

    fn run_narrow(&self, path: &[u8]) -> bool {
        let (skip, skip_two) = (self.skip[0], self.skip_two[0]);
        let close = |mut state: u64| loop {
            let next = state | (state & skip) << 1 | (state & skip_two) << 2;
            if next == state {
                return state;
            }
            state = next;
        };
        let mut state = close(self.start_bits(true)[0]);
        let mut rest = path;
        while let Some(&byte) = rest.first() {
            let (advance, stay);
            if byte < 128 {
                (advance, stay) = (self.advance[byte as usize], self.stay[byte as usize]);
                rest = &rest[1..];
            } else {
                let (c, len) = decode(rest);
                let masks = self.masks(c);
                (advance, stay) = (masks.0[0], masks.1[0]);
                rest = &rest[len..];
            }
            state = close((state & advance) << 1 | state & stay);
            if state == 0 {
                return false;
            }
        }
        state >> self.items.len() & 1 == 1
    }

    fn run_wide(&self, path: &[u8]) -> bool {
        let mut state = self.start_bits(true);
        self.close(&mut state);
        let mut rest = path;
        while !rest.is_empty() {
            let (c, len) = decode(rest);
            rest = &rest[len..];
            let (advance, stay) = self.masks(c);
            let moving: Vec<u64> = state.iter().zip(&advance).map(|(s, a)| s & a).collect();
            let mut next = shift(&moving, 1);
            for ((next, state), stay) in next.iter_mut().zip(&state).zip(&stay) {
                *next |= state & stay;
            }
            self.close(&mut next);
            if next.iter().all(|w| *w == 0) {
                return false;
            }
            state = next;
        }
        state[self.items.len() / 64] >> (self.items.len() % 64) & 1 == 1
    }

    fn close(&self, state: &mut [u64]) {
        loop {
            let one: Vec<u64> = state.iter().zip(&self.skip).map(|(s, m)| s & m).collect();
            let two: Vec<u64> = state.iter().zip(&self.skip_two).map(|(s, m)| s & m).collect();
            let (one, two) = (shift(&one, 1), shift(&two, 2));
            let mut changed = false;
            for (at, word) in state.iter_mut().enumerate() {
                let next = *word | one[at] | two[at];
                changed |= next != *word;
                *word = next;
            }
            if !changed {
                return;
            }
        }
    }

    /// The state before the first character: past any leading `^`.
    fn start_bits(&self, at_start: bool) -> Vec<u64> {
        let mut state = vec![0; self.words];
        let leading = self.items.iter().take_while(|i| at_start && **i == Item::Start).count();
        state[leading / 64] |= 1 << (leading % 64);
        state
    }

    fn masks(&self, c: char) -> (Vec<u64>, Vec<u64>) {
        if c.is_ascii() {
            let slot = c as usize * self.words;
            return (
                self.advance[slot..slot + self.words].to_vec(),
                self.stay[slot..slot + self.words].to_vec(),
            );
        }
        let (mut advances, mut stays) = (vec![0; self.words], vec![0; self.words]);
        for (at, item) in self.items.iter().enumerate() {
            let (advance, stay) = step(item, c);
            advances[at / 64] |= u64::from(advance) << (at % 64);
            stays[at / 64] |= u64::from(stay) << (at % 64);
        }
        (advances, stays)
    }
}

fn shift(words: &[u64], by: u32) -> Vec<u64> {
    let mut out = vec![0; words.len()];
    let mut carry = 0;
    for (to, from) in out.iter_mut().zip(words) {
        *to = from << by | carry;
        carry = from >> (64 - by);
    }
    out
}

/// Whether a character moves on from a position, and whether it may stay there.
fn step(item: &Item, c: char) -> (bool, bool) {
    match item {
        Item::Char(wanted) => (*wanted == c, false),
        Item::One => (c != '/', false),
        Item::Star => (false, c != '/'),
        Item::Class(class) => (class.has(c), false),
        Item::Folders | Item::Start => (false, false),
        Item::FoldersLoop => (c == '/', c != '\n'),
        Item::Rest => (false, c != '\n'),
    }
}

/// The first character of some bytes and its length; a byte that is no UTF-8 counts as one U+FFFD.
fn decode(bytes: &[u8]) -> (char, usize) {
    if bytes[0] < 128 {
        return (bytes[0] as char, 1);
    }
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) => (c, c.len_utf8()),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

fn parse(pattern: &str, dialect: Dialect) -> Result<Vec<Item>, PatternError> {
    let bad = || PatternError::Syntax { pattern: pattern.to_string() };
    let chars: Vec<char> = pattern.chars().collect();
    let mut items = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '*' if dialect == Dialect::Ignore && chars.get(at + 1) == Some(&'*') => {
                at += 2;
                if chars.get(at) == Some(&'/') {
                    at += 1;
                }
                if at == chars.len() {
                    items.push(Item::Rest);
                } else {
                    items.extend([Item::Folders, Item::FoldersLoop]);
                }
                continue;
            }
            '*' if items.last() == Some(&Item::Star) => {}
            '*' => items.push(Item::Star),
            '?' => items.push(Item::One),
            '[' => {
                let (class, next) = parse_class(&chars, at + 1).ok_or_else(bad)?;
                if dialect == Dialect::Ignore && class.ranges.iter().any(|(lo, hi)| lo > hi) {
                    return Err(bad());
                }
                items.push(Item::Class(class));
                at = next;
                continue;
            }
            '\\' => {
                at += 1;
                items.push(Item::Char(*chars.get(at).ok_or_else(bad)?));
            }
            '^' if dialect == Dialect::Ignore => items.push(Item::Start),
            c => items.push(Item::Char(c)),
        }
        at += 1;
    }
    Ok(items)
}

/// Parses a class from behind its `[`; gives the position behind its `]`.
fn parse_class(chars: &[char], mut at: usize) -> Option<(Class, usize)> {
    let negated = chars.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        if chars.get(at) == Some(&']') && !ranges.is_empty() {
            return Some((Class { negated, ranges }, at + 1));
        }
        let lo = class_char(chars, &mut at)?;
        let mut hi = lo;
        if chars.get(at) == Some(&'-') {
            at += 1;
            hi = class_char(chars, &mut at)?;
        }
        ranges.push((lo, hi));
    }
}

fn class_char(chars: &[char], at: &mut usize) -> Option<char> {
    let mut c = *chars.get(*at)?;
    if c == '-' || c == ']' {
        return None;
    }
    if c == '\\' {
        *at += 1;
        c = *chars.get(*at)?;
    }
    *at += 1;
    Some(c)
}

/// Checks the parts of a pattern between its stars as the shell's matcher would for the name `.`: no further than it
/// could match.
fn check_start(pattern: &str) -> Result<(), PatternError> {
    let mut name = ".";
    let mut rest = pattern;
    while !rest.is_empty() {
        let part = rest.trim_start_matches('*');
        let starred = part.len() < rest.len();
        let (part, behind) = part.split_at(part_end(part));
        if starred && part.is_empty() {
            return Ok(());
        }
        if !Glob::new(part).map_err(|_| PatternError::Syntax { pattern: pattern.to_string() })?.matches(name)
        {
            return Ok(());
        }
        name = "";
        rest = behind;
    }
    Ok(())
}

/// Where the next star that counts is.
fn part_end(text: &str) -> usize {
    let mut in_class = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' => in_class = true,
            ']' => in_class = false,
            '*' if !in_class => return at,
            _ => {}
        }
    }
    text.len()
}

/// One line of an ignore file, compiled to the cheapest test that decides it.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Glob(Box<Glob>),
    Regular(Box<regex::bytes::Regex>),
}

impl Test {
    /// `clean` is checked for syntax in the shell's dialect, in which a double star is two single
    /// ones, as the field's matchers do.
    pub(crate) fn new(clean: &Clean<'_>) -> Result<Test, PatternError> {
        let text = clean.0;
        check_start(text)?;
        let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
        if !special(text) {
            return Ok(Test::Exact(text.into()));
        }
        if let Some(prefix) = text.strip_suffix("**").filter(|p| !p.is_empty() && !special(p)) {
            return Ok(Test::Prefix(prefix.into()));
        }
        if let Some(suffix) = text.strip_prefix("**").filter(|s| !special(s)) {
            return Ok(Test::Suffix(suffix.into()));
        }
        match Glob::ignore(text) {
            Ok(glob) if !regular::needed(text) => Ok(Test::Glob(Box::new(glob))),
            _ => {
                let bad = || PatternError::Syntax { pattern: text.to_string() };
                Ok(Test::Regular(Box::new(regular::compile(text).ok_or_else(bad)?)))
            }
        }
    }

    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Test::Exact(text) => path == text,
            Test::Prefix(text) => path.starts_with(text),
            Test::Suffix(text) => path.ends_with(text) || text.strip_prefix(b"/").is_some_and(|t| t == path),
            Test::Glob(glob) => glob.matches(path),
            Test::Regular(expression) => expression.is_match(path),
        }
    }
}
