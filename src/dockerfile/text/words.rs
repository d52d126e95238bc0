//! The words of a statement, split by the rules of its keyword.

use crate::error::{DockerfileError, Result};

/// The arguments of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    /// The words; for ENV and LABEL triples of name, value and `=`, or nothing in its place for the old form.
    pub words: Vec<String>,
    /// Whether they were a JSON array.
    pub json: bool,
    /// For ONBUILD: the keyword of the trigger is the first word, and whether its own arguments were JSON.
    pub trigger_json: bool,
}

/// Keyword, flags, arguments.
pub type Split = (String, Vec<String>, Arguments);

fn blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// What flags end with.
fn space(c: char) -> bool {
    blank(c) || c == '\n'
}

/// Splits at the first run of blanks.
fn cut_blank(text: &str) -> Option<(&str, &str)> {
    let (head, tail) = text.split_at(text.find(blank)?);
    Some((head, tail.trim_start_matches(blank)))
}

/// Takes a whole line apart.
pub fn split_statement(line: &str, escape: char) -> Result<Split> {
    let (keyword, rest) = cut_blank(line.trim()).unwrap_or((line.trim(), ""));
    let (flags, rest) = split_flags(rest, escape);
    let arguments = split_arguments(keyword, rest.trim(), escape)?;
    Ok((keyword.to_owned(), flags, arguments))
}

/// Whether here-documents are looked for.
pub fn may_have_heredoc((keyword, _, arguments): &Split) -> bool {
    let takes = |keyword: &str| matches!(keyword.to_ascii_lowercase().as_str(), "add" | "copy" | "run");
    if keyword.eq_ignore_ascii_case("onbuild") {
        return arguments.words.first().is_some_and(|word| takes(word)) && !arguments.trigger_json;
    }
    takes(keyword) && !arguments.json
}

/// The `--flag` words in front, without their quotes and escapes, and what follows them.
fn split_flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(space);
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match quote {
                None if space(c) => {
                    end = at;
                    break;
                }
                None if c == '\'' || c == '"' => quote = Some(c),
                Some(open) if c == open => quote = None,
                _ if c == escape => match chars.next() {
                    Some((_, next)) => word.push(next),
                    None => quote = None,
                },
                _ => word.push(c),
            }
        }
        rest = &rest[end..];
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

fn split_arguments(keyword: &str, rest: &str, escape: char) -> Result<Arguments> {
    let words = |words: Vec<String>| Arguments { words, ..Arguments::default() };
    let one = |word: &str| words(if word.is_empty() { vec![] } else { vec![word.to_owned()] });
    match keyword.to_ascii_lowercase().as_str() {
        "add" | "copy" | "volume" => Ok(match json_array(rest)? {
            Some(json) => json,
            None => words(split_blanks(rest)),
        }),
        "cmd" | "entrypoint" | "run" | "shell" => Ok(json_array(rest)?.unwrap_or_else(|| one(rest))),
        "expose" | "from" => Ok(words(split_blanks(rest))),
        "maintainer" | "stopsignal" | "user" | "workdir" => Ok(one(rest)),
        "arg" => Ok(words(quoted_words(rest, escape))),
        "env" => Ok(words(pairs("ENV", rest, escape)?)),
        "label" => Ok(words(pairs("LABEL", rest, escape)?)),
        "healthcheck" => healthcheck(rest),
        "onbuild" if rest.is_empty() => Ok(Arguments::default()),
        "onbuild" => {
            let (keyword, _, inner) = match cut_blank(rest) {
                // A trigger may not have a trigger; of those within, only what is wrong with the innermost counts.
                Some((inner, mut rest)) if inner.eq_ignore_ascii_case("onbuild") => {
                    while let Some((next, deeper)) = cut_blank(rest)
                        && next.eq_ignore_ascii_case("onbuild")
                    {
                        rest = deeper;
                    }
                    if !rest.eq_ignore_ascii_case("onbuild") {
                        split_statement(rest, escape)?;
                    }
                    (inner.to_owned(), Vec::new(), Arguments::default())
                }
                _ => split_statement(rest, escape)?,
            };
            let mut all = vec![keyword];
            all.extend(inner.words);
            Ok(Arguments { words: all, json: false, trigger_json: inner.json })
        }
        _ => Ok(Arguments::default()),
    }
}

fn split_blanks(rest: &str) -> Vec<String> {
    rest.split(blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A JSON array of texts; none when it is no JSON array.
fn json_array(rest: &str) -> Result<Option<Arguments>> {
    let rest = rest.trim_start();
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else {
        return Ok(None);
    };
    let mut words = Vec::with_capacity(values.len());
    for value in values {
        let serde_json::Value::String(text) = value else {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            return Err(DockerfileError::user(message));
        };
        words.push(text);
    }
    Ok(Some(Arguments { words, json: true, trigger_json: false }))
}

/// HEALTHCHECK: a type, then a command in either form.
fn healthcheck(rest: &str) -> Result<Arguments> {
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if kind.is_empty() {
        return Ok(Arguments::default());
    }
    let rest = rest.trim_start();
    let mut arguments = json_array(rest)?.unwrap_or_else(|| Arguments {
        words: if rest.is_empty() { vec![] } else { vec![rest.to_owned()] },
        ..Arguments::default()
    });
    arguments.words.insert(0, kind.to_owned());
    Ok(arguments)
}

/// `name=value …`, or the old `name value`.
fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<String>> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.contains('=') {
        let Some((name, value)) = cut_blank(rest) else {
            return Err(DockerfileError::user(format!("{keyword} must have two arguments")));
        };
        return Ok(vec![name.to_owned(), value.to_owned(), String::new()]);
    }
    let mut all = Vec::with_capacity(words.len() * 3);
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            let quoted = crate::text::quote::go_quote(&word);
            let message = format!("Syntax error - can't find = in {quoted}. Must be of the form: name=value");
            return Err(DockerfileError::user(message));
        };
        all.extend([name.to_owned(), value.to_owned(), "=".to_owned()]);
    }
    Ok(all)
}

/// Words that keep their quotes and escapes, which expansion takes off later.
fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut chars = rest.chars();
    let mut finish = |word: &mut String, quoted: &mut bool| {
        if *quoted || !word.is_empty() {
            words.push(std::mem::take(word));
        }
        *quoted = false;
    };
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            finish(&mut word, &mut quoted);
            continue;
        }
        match quote {
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                quoted = true;
            }
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end escapes nothing and goes.
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
            continue;
        }
        word.push(c);
    }
    finish(&mut word, &mut quoted);
    words
}
