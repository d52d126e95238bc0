//! Modes as `chmod` takes them.

use crate::{Error, Result};

/// The bits that a mode can change.
const ALL: u32 = 0o7777;

/// What becomes of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ModeChange {
    /// They stay.
    #[default]
    Keep,
    /// They become these.
    Set(u32),
    /// They change clause by clause.
    Clauses(Vec<Clause>),
}

/// One step of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    /// The read, write and execute bits of those that are meant.
    who: u32,
    op: char,
    /// What is added, taken away or set.
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct What {
    /// Plain bits, for everybody: `who` cuts them down.
    bits: u32,
    /// `X`: may be executed where it is a folder or could be before.
    execute_if: bool,
    /// The bits that somebody has, by how far they must be shifted down.
    copy: Option<u32>,
}

impl ModeChange {
    /// Parses octal digits, or clauses such as `u+rw,go=rX`.
    pub(crate) fn parse(text: &str) -> Result<ModeChange> {
        let wrong = || Error::Mode { mode: text.to_string() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| mode & !ALL == 0);
            return mode.map(ModeChange::Set).ok_or_else(wrong);
        }
        let mut clauses = Vec::new();
        for clause in text.split(',') {
            clauses.extend(parse_clause(clause).ok_or_else(wrong)?);
        }
        Ok(ModeChange::Clauses(clauses))
    }

    /// The permissions that something with these gets.
    pub(crate) fn apply(&self, mode: u32, is_folder: bool) -> u32 {
        let mode = mode & ALL;
        match self {
            ModeChange::Keep => mode,
            ModeChange::Set(mode) => *mode & ALL,
            ModeChange::Clauses(clauses) => {
                let executable = is_folder || mode & 0o111 != 0;
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, executable))
            }
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, executable: bool) -> u32 {
        let copied = self.what.copy.map_or(0, |shift| (mode >> shift & 7) * 0o111);
        let execute = if self.what.execute_if && executable { 0o111 } else { 0 };
        let bits = (self.what.bits | copied | execute) & self.who;
        match self.op {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.who | bits,
        }
    }
}

/// One clause has one `who` and any number of operations.
fn parse_clause(text: &str) -> Option<Vec<Clause>> {
    let from = text.find(['+', '-', '='])?;
    let mut who = 0;
    let mut named = false;
    for c in text[..from].chars() {
        named = true;
        who |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            'a' => 0o6777,
            _ => return None,
        };
    }
    // Without anybody named, everybody is meant.
    let who = if named { who } else { 0o6777 };
    let mut clauses = Vec::new();
    let mut rest = &text[from..];
    while let Some(op) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        clauses.push(parse_operation(who, op, &rest[1..end])?);
        rest = &rest[end..];
    }
    Some(clauses)
}

fn parse_operation(who: u32, op: char, text: &str) -> Option<Clause> {
    let mut what = What { bits: 0, execute_if: false, copy: None };
    let mut who = who;
    for c in text.chars() {
        match c {
            'r' => what.bits |= 0o444,
            'w' => what.bits |= 0o222,
            'x' => what.bits |= 0o111,
            'X' if op == '-' => what.bits |= 0o111,
            'X' => what.execute_if = true,
            's' => what.bits |= 0o6000,
            // Others have neither of both.
            't' if who & 0o6770 != 0 => {
                what.bits |= 0o1000;
                who |= 0o1000;
            }
            't' => {}
            'u' => what.copy = Some(6),
            'g' => what.copy = Some(3),
            'o' => what.copy = Some(0),
            _ => return None,
        }
    }
    Some(Clause { who, op, what })
}

#[cfg(test)]
#[path = "modes_tests.rs"]
mod modes_tests;
