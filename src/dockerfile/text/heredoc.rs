//! Here-documents: `<<NAME` words and the text that they stand for.

use crate::error::{DockerfileError, Result};
use crate::text::expand::{Lexer, NoVariables};

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Whether variables in it are expanded: its name was not quoted.
    pub expand: bool,
    /// Whether leading tabs are taken off: `<<-`.
    pub chomp: bool,
    /// Its lines, with their ends.
    pub content: String,
}

impl Heredoc {
    /// The content as the instruction gets it.
    pub fn text(&self) -> String {
        if self.chomp { without_tabs(&self.content) } else { self.content.clone() }
    }
}

fn without_tabs(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

/// The here-document that a word stands for, with nothing in it yet.
pub fn parse(word: &str) -> Result<Option<Heredoc>> {
    // `[fd]<<[-]name`, where no further `<` follows.
    let Some(rest) = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<") else {
        return Ok(None);
    };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = Lexer { skip_unset: true, ..Lexer::new('\\') }.words(rest, &NoVariables)?;
    let [name] = plain.as_slice() else {
        return Ok(None);
    };
    let raw = Lexer { skip_unset: true, raw_quotes: true, ..Lexer::new('\\') }.words(rest, &NoVariables)?;
    let [raw] = raw.as_slice() else {
        let message = format!("internal lexing of heredoc produced inconsistent results: {rest}");
        return Err(DockerfileError::user(message));
    };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(name) == quotes(raw);
    Ok(Some(Heredoc { name: name.clone(), expand, chomp, content: String::new() }))
}

/// The here-documents that a line announces.
pub fn find(line: &str) -> Result<Vec<Heredoc>> {
    let lexer = Lexer { skip_unset: true, raw_quotes: true, raw_escapes: true, ..Lexer::new('\\') };
    let words = lexer.words(line, &NoVariables).unwrap_or_default();
    let mut found = Vec::new();
    for word in words {
        found.extend(parse(&word)?);
    }
    Ok(found)
}
