//! `# name=value` lines at the top of a file.

use crate::error::{DockerfileError, Lines, Result};

const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// In lower case.
    pub name: &'static str,
    /// What follows the `=`.
    pub value: String,
    /// Its line, counted from 1.
    pub line: u32,
}

/// Reads directives until the first line that is none.
#[derive(Debug, Default)]
pub struct DirectiveReader {
    line: u32,
    done: bool,
    seen: Vec<&'static str>,
}

impl DirectiveReader {
    /// For a file whose first `skipped` lines were taken off.
    fn after(skipped: u32) -> Self {
        DirectiveReader { line: skipped, ..Self::default() }
    }

    /// The next line; some if it is a directive.
    pub fn read(&mut self, line: &str, comment: &str) -> Result<Option<Directive>> {
        self.line += 1;
        if self.done {
            return Ok(None);
        }
        let found = line.strip_prefix(comment).and_then(|text| split(text.trim_start()));
        let Some((name, value)) = found else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(DockerfileError::user(format!("only one {name} parser directive can be used")));
        }
        self.seen.push(name);
        Ok(Some(Directive { name, value: value.to_owned(), line: self.line }))
    }
}

/// A known name and a value that is not empty.
fn split(text: &str) -> Option<(&'static str, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end_matches(|c: char| c.is_ascii_whitespace());
    let value = value.trim_matches(|c: char| c.is_ascii_whitespace());
    if value.is_empty() {
        return None;
    }
    let known = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
    Some((known, value))
}

/// The frontend that a file asks to be built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// Its image.
    pub reference: String,
    /// The whole value: the image and what else was said.
    pub cmdline: String,
    /// Where it was said.
    pub lines: Lines,
}

/// Finds `# syntax=…`, `// syntax=…` or the `"syntax"` of a JSON object.
pub fn detect_syntax(file: &[u8]) -> Option<Syntax> {
    find("syntax", file, true)
}

/// The value of a directive of a Dockerfile.
pub(crate) fn directive(name: &str, file: &[u8]) -> Option<Syntax> {
    find(name, file, false)
}

fn find(name: &str, file: &[u8], any_form: bool) -> Option<Syntax> {
    let text = String::from_utf8_lossy(file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file));
    let mut text = text.as_ref();
    let mut skipped = 0;
    if text.starts_with("#!") {
        text = text.split_once('\n').map_or("", |(_, rest)| rest);
        skipped = 1;
    }
    let comments: &[&str] = if any_form { &["#", "//"] } else { &["#"] };
    for comment in comments {
        let mut reader = DirectiveReader::after(skipped);
        for line in text.lines() {
            match reader.read(line, comment) {
                Ok(Some(found)) if found.name == name => {
                    let reference = found.value.split(' ').next().unwrap_or_default().to_owned();
                    let lines = Lines::one(found.line);
                    return Some(Syntax { reference, cmdline: found.value, lines });
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
    if !any_form || !text.trim_start().starts_with('{') {
        return None;
    }
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let value = json.get(name)?.as_str()?.to_owned();
    Some(Syntax { reference: value.clone(), cmdline: value, lines: Lines::one(skipped) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_is_found_in_all_forms() {
        let found =
            |text: &str| detect_syntax(text.as_bytes()).map(|s| (s.reference, s.cmdline, s.lines.first));
        let some = |r: &str, c: &str, l| Some((r.to_owned(), c.to_owned(), l));
        assert_eq!(found("# syntax = a/b:1 x=y \nFROM x"), some("a/b:1", "a/b:1 x=y", 1));
        assert_eq!(found("#!/usr/bin/env x\n#Syntax=a\n"), some("a", "a", 2));
        assert_eq!(found("\u{feff}#escape=`\n#syntax=a\n"), some("a", "a", 2));
        assert_eq!(found("// syntax=a\n"), some("a", "a", 1));
        assert_eq!(found("{\"syntax\": \"a\"}"), some("a", "a", 0));
        assert_eq!(found("# hello\n# syntax=a\n"), None);
        assert_eq!(found("FROM x\n# syntax=a\n"), None);
        assert_eq!(found(""), None);
    }
}
