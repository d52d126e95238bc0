//! From physical lines to statements: continuation, comments, directives and here-documents.

use crate::error::{DockerfileError, Lines, Result};
use crate::text::directives::DirectiveReader;
use crate::text::heredoc::{self, Heredoc};
use crate::text::words::{self, Arguments};

/// A line may have this many bytes without its end, as in BuildKit.
const MAX_LINE: usize = (64 << 10) - 1;

/// One instruction as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The keyword in its own case.
    pub keyword: String,
    /// `--name=value` words in front of the arguments, unquoted.
    pub flags: Vec<String>,
    /// What follows.
    pub arguments: Arguments,
    /// The whole line after continuation, trimmed.
    pub code: String,
    /// The blanks behind it.
    pub blanks: String,
    /// Where it is, with its here-documents.
    pub lines: Lines,
    /// The comment lines right above, without their `#`.
    pub comments: Vec<String>,
    /// Its here-documents.
    pub heredocs: Vec<Heredoc>,
}

/// A file as a list of statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// In order.
    pub statements: Vec<Statement>,
    /// The character that escapes and continues lines.
    pub escape: char,
    /// Where empty lines interrupt a continued one.
    pub empty_continuations: Vec<Lines>,
}

/// Reads a whole file.
pub fn read(file: &[u8]) -> Result<Text> {
    let text = String::from_utf8_lossy(file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file));
    let mut reader = Reader {
        rest: text.as_ref(),
        number: 0,
        directives: DirectiveReader::default(),
        escape: '\\',
        empty_continuations: Vec::new(),
    };
    let mut statements = Vec::new();
    let mut comments = Vec::new();
    while let Some(raw) = reader.next_line()? {
        if let Some(statement) = reader.statement(raw, &mut comments)? {
            statements.push(statement);
        }
    }
    if statements.is_empty() {
        let error = DockerfileError::user("file with no instructions");
        return Err(error.at(Lines::one(reader.number)));
    }
    let Reader { escape, empty_continuations, .. } = reader;
    Ok(Text { statements, escape, empty_continuations })
}

/// Reads the one statement of an ONBUILD trigger, which has no directives of its own file.
pub fn read_trigger(trigger: &str) -> Result<Statement> {
    let mut text = read(trigger.as_bytes())?;
    match text.statements.len() {
        1 => Ok(text.statements.remove(0)),
        _ => Err(DockerfileError::user("onbuild trigger should be a single expression")),
    }
}

struct Reader<'a> {
    rest: &'a str,
    /// Of the line read last, counted from 1.
    number: u32,
    directives: DirectiveReader,
    escape: char,
    empty_continuations: Vec<Lines>,
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

impl<'a> Reader<'a> {
    /// The next physical line with its end.
    fn next_line(&mut self) -> Result<Option<&'a str>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |end| end + 1);
        let (line, rest) = self.rest.split_at(end);
        if line.len() - usize::from(line.ends_with('\n')) > MAX_LINE {
            let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
            return Err(DockerfileError::user(message).at(Lines::one(self.number)));
        }
        self.rest = rest;
        self.number += 1;
        Ok(Some(line))
    }

    /// The line without the escape character that continues it, and whether it ends there.
    fn cut_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(cut) if !cut.ends_with(self.escape) => (cut, false),
            _ => (line, true),
        }
    }

    /// The statement that starts with `raw`; none when that is a comment or blank.
    fn statement(&mut self, raw: &str, comments: &mut Vec<String>) -> Result<Option<Statement>> {
        let line = without_end(raw).trim_start();
        let directive =
            self.directives.read(line, "#").map_err(|error| error.at(Lines::one(self.number - 1)))?;
        if let Some(directive) = &directive {
            if directive.name == "escape" {
                self.escape = match directive.value.as_str() {
                    "`" => '`',
                    "\\" => '\\',
                    other => {
                        let message = format!("invalid escape token '{other}' does not match ` or \\");
                        return Err(DockerfileError::user(message).at(Lines::one(self.number - 1)));
                    }
                };
            }
            return Ok(None);
        }
        if is_comment(line) {
            let mut rest = raw.chars();
            rest.next();
            match rest.as_str().trim() {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
            return Ok(None);
        }
        let first = self.number;
        let (head, mut ended) = self.cut_continuation(line);
        if ended && head.is_empty() {
            return Ok(None);
        }
        let mut whole = head.to_owned();
        let mut gaps = false;
        while !ended {
            let Some(raw) = self.next_line()? else {
                break;
            };
            let _ = self.directives.read(raw, "#");
            if is_comment(raw) {
                continue;
            }
            let line = without_end(raw);
            if line.trim_start().is_empty() {
                gaps = true;
                continue;
            }
            let (part, last) = self.cut_continuation(line);
            whole.push_str(part);
            ended = last;
        }
        if gaps {
            self.empty_continuations.push(Lines::one(self.number));
        }
        let at = |last: u32| Lines { first, last };
        let split = words::split_statement(&whole, self.escape).map_err(|error| error.at(at(self.number)))?;
        let mut heredocs = Vec::new();
        if whole.contains("<<") && words::may_have_heredoc(&split) {
            heredocs = heredoc::find(&whole).map_err(|error| error.at(at(self.number)))?;
            for heredoc in &mut heredocs {
                self.heredoc_body(heredoc).map_err(|error| error.at(at(self.number)))?;
            }
        }
        let (keyword, flags, arguments) = split;
        Ok(Some(Statement {
            keyword,
            flags,
            arguments,
            code: whole.trim().to_owned(),
            blanks: whole[whole.trim_end().len()..].to_owned(),
            lines: at(self.number),
            comments: std::mem::take(comments),
            heredocs,
        }))
    }

    fn heredoc_body(&mut self, heredoc: &mut Heredoc) -> Result<()> {
        while let Some(raw) = self.next_line()? {
            let mut line = without_end(raw);
            if heredoc.chomp {
                line = line.trim_start_matches('\t');
            }
            if line == heredoc.name {
                return Ok(());
            }
            heredoc.content.push_str(raw);
        }
        Err(DockerfileError::user("unterminated heredoc"))
    }
}
