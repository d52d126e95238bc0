//! `--format` templates: the part of Go's template language that such one-liners are made of.
//!
//! Text, fields (`{{.ID}}`, `{{.Record.Ref}}`), `{{json .}}`, `{{len .}}`, `{{print …}}`,
//! `{{println …}}`, `{{range .}}…{{else}}…{{end}}`, `{{if .}}…{{else}}…{{end}}`, `{{with .}}…{{end}}`,
//! and `-` at a brace to trim space. Anything else is refused by name.

use crate::error::ClientError;
use crate::values::Value;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Show(Call),
    Block { kind: BlockKind, of: Operand, then: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockKind {
    If,
    Range,
    With,
}

#[derive(Debug)]
enum Call {
    Plain(Operand),
    Json(Operand),
    Len(Operand),
    Print(Vec<Operand>, &'static str),
}

#[derive(Debug)]
enum Operand {
    /// Fields to follow from the value at hand; none is that value itself.
    Path(Vec<String>),
    Literal(String),
}

fn bad<T>(what: impl AsRef<str>) -> Result<T, ClientError> {
    Err(ClientError::invalid(format!("template: {}", what.as_ref())))
}

impl Template {
    /// Reads a template; `json` alone stands for `{{json .}}`.
    ///
    /// # Errors
    /// A mistake, or a part of the language that is not known here.
    pub(crate) fn parse(text: &str) -> Result<Template, ClientError> {
        let text = if text == "json" { "{{json .}}" } else { text };
        let mut tokens = tokens(text)?.into_iter();
        let (nodes, end) = block(&mut tokens)?;
        match end {
            None => Ok(Template(nodes)),
            Some(word) => bad(format!("unexpected {{{{{word}}}}}")),
        }
    }

    /// Applies it.
    ///
    /// # Errors
    /// A field that the value doesn't have.
    pub(crate) fn apply(&self, value: &Value) -> Result<String, ClientError> {
        let mut out = String::new();
        render(&self.0, value, &mut out)?;
        Ok(out)
    }
}

enum Token {
    Text(String),
    Action(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, ClientError> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let Some(open) = rest.find("{{") else {
            out.push(Token::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
            return Ok(out);
        };
        let mut before = &rest[..open];
        if trim {
            before = before.trim_start();
        }
        let inside = &rest[open + 2..];
        let Some(close) = inside.find("}}") else { return bad("an action is not closed with }}") };
        let mut action = &inside[..close];
        if let Some(trimmed) = action.strip_prefix("- ") {
            action = trimmed;
            before = before.trim_end();
        }
        trim = action.ends_with(" -");
        action = action.strip_suffix(" -").unwrap_or(action);
        out.push(Token::Text(before.to_owned()));
        out.push(Token::Action(action.trim().to_owned()));
        rest = &inside[close + 2..];
    }
}

/// Reads up to `end` or `else`, and says which one it was.
fn block(tokens: &mut impl Iterator<Item = Token>) -> Result<(Vec<Node>, Option<String>), ClientError> {
    let mut nodes = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Token::Action(action) => action,
        };
        let words = words(&action)?;
        let kind = match words.first().map(String::as_str) {
            Some("end" | "else") if words.len() == 1 => return Ok((nodes, Some(action))),
            Some("if") => BlockKind::If,
            Some("range") => BlockKind::Range,
            Some("with") => BlockKind::With,
            _ => {
                nodes.push(Node::Show(call(&words)?));
                continue;
            }
        };
        let [_, of] = words.as_slice() else {
            return bad(format!("{{{{{action}}}}}: one value is expected here"));
        };
        let of = operand(of)?;
        let (then, end) = block(tokens)?;
        let (otherwise, end) = match end.as_deref() {
            Some("else") => block(tokens)?,
            _ => (Vec::new(), end),
        };
        if end.as_deref() != Some("end") {
            return bad(format!("{{{{{action}}}}} is not closed with {{{{end}}}}"));
        }
        nodes.push(Node::Block { kind, of, then, otherwise });
    }
    Ok((nodes, None))
}

fn words(action: &str) -> Result<Vec<String>, ClientError> {
    let mut out = Vec::new();
    let mut rest = action.trim_start();
    while !rest.is_empty() {
        let end = match rest.strip_prefix('"') {
            Some(tail) => match tail.find('"') {
                Some(end) => end + 2,
                None => return bad(format!("{action}: a text is not closed")),
            },
            None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        out.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    Ok(out)
}

fn call(words: &[String]) -> Result<Call, ClientError> {
    let operands = |words: &[String]| words.iter().map(|w| operand(w)).collect::<Result<Vec<_>, _>>();
    match words {
        [] => bad("an action is empty"),
        [name, of] if name == "json" => Ok(Call::Json(operand(of)?)),
        [name, of] if name == "len" => Ok(Call::Len(operand(of)?)),
        [name, of @ ..] if name == "print" => Ok(Call::Print(operands(of)?, "")),
        [name, of @ ..] if name == "println" => Ok(Call::Print(operands(of)?, "\n")),
        [of] => Ok(Call::Plain(operand(of)?)),
        [name, ..] => bad(format!(
            "{name:?} is not supported here; use fields, json, len, print, println, range, if and with"
        )),
    }
}

fn operand(word: &str) -> Result<Operand, ClientError> {
    if let Some(text) = word.strip_prefix('"').and_then(|w| w.strip_suffix('"')) {
        return Ok(Operand::Literal(text.replace("\\n", "\n").replace("\\t", "\t")));
    }
    let Some(path) = word.strip_prefix('.') else {
        return bad(format!(
            "{word:?} is not supported here; use fields, json, len, print, println, range, if and with"
        ));
    };
    let names: Vec<String> = path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Operand::Path(names))
}

fn look_up(of: &Operand, value: &Value) -> Result<Value, ClientError> {
    let path = match of {
        Operand::Literal(text) => return Ok(Value::Text(text.clone())),
        Operand::Path(path) => path,
    };
    let mut at = value;
    for name in path {
        at = match at {
            Value::Record(fields) => match fields.iter().find(|f| f.name == name) {
                Some(field) => &field.value,
                None => {
                    let known: Vec<&str> = fields.iter().map(|f| f.name).collect();
                    return bad(format!("there is no field .{name} here; there are .{}", known.join(", .")));
                }
            },
            Value::Map(entries) => match entries.iter().find(|(key, _)| key == name) {
                Some((_, value)) => value,
                None => return Ok(Value::Text("<no value>".into())),
            },
            Value::None => return bad(format!("there is nothing of which .{name} could be taken")),
            Value::List(_) => {
                return bad(format!(
                    "can't take .{name} of a list; use {{{{range .}}}}{{{{.{name}}}}}{{{{end}}}}"
                ));
            }
            _ => return bad(format!("can't take .{name} of a plain value")),
        };
    }
    Ok(at.clone())
}

fn render(nodes: &[Node], value: &Value, out: &mut String) -> Result<(), ClientError> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Show(call) => show(call, value, out)?,
            Node::Block { kind, of, then, otherwise } => {
                let found = look_up(of, value)?;
                if found.is_zero() {
                    render(otherwise, value, out)?;
                    continue;
                }
                match (kind, &found) {
                    (BlockKind::If, _) => render(then, value, out)?,
                    (BlockKind::With, found) => render(then, found, out)?,
                    (BlockKind::Range, Value::List(list)) => {
                        list.iter().try_for_each(|v| render(then, v, out))?
                    }
                    (BlockKind::Range, Value::Map(map)) => {
                        map.iter().try_for_each(|(_, v)| render(then, v, out))?
                    }
                    (BlockKind::Range, _) => return bad("range needs a list"),
                }
            }
        }
    }
    Ok(())
}

fn show(call: &Call, value: &Value, out: &mut String) -> Result<(), ClientError> {
    match call {
        Call::Plain(of) => out.push_str(&look_up(of, value)?.to_string()),
        Call::Json(of) => match serde_json::to_string(&look_up(of, value)?) {
            Ok(json) => out.push_str(&json),
            Err(error) => return bad(error.to_string()),
        },
        Call::Len(of) => {
            let size = match look_up(of, value)? {
                Value::List(list) => list.len(),
                Value::Map(map) => map.len(),
                Value::Text(text) => text.len(),
                Value::None => 0,
                _ => return bad("len needs a list, a map or a text"),
            };
            out.push_str(&size.to_string());
        }
        Call::Print(of, end) => {
            let shown = of
                .iter()
                .map(|of| look_up(of, value).map(|v| v.to_string()))
                .collect::<Result<Vec<_>, _>>()?;
            out.push_str(&shown.join(" "));
            out.push_str(end);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values;
    use crosskit_api::control::UsageRecord;

    fn records() -> Value {
        let record = |id: &str, size| UsageRecord { id: id.into(), size, ..Default::default() };
        Value::List(vec![values::usage(&record("a<", 1)), values::usage(&record("b", 0))])
    }

    fn apply(template: &str) -> Result<String, String> {
        Template::parse(template).and_then(|t| t.apply(&records())).map_err(|e| e.to_string())
    }

    #[test]
    fn fields_loops_and_conditions() {
        assert_eq!(
            apply("{{range .}}{{.ID}}={{if .Size}}{{.Size}}{{else}}-{{end}};{{end}}").unwrap(),
            "a<=1;b=-;"
        );
        assert_eq!(apply("{{len .}} {{- \"x\" -}}  y").unwrap(), "2xy");
        assert_eq!(apply("{{range .}}{{println .ID .InUse}}{{end}}").unwrap(), "a< false\nb false\n");
        assert_eq!(apply("{{range .}}{{with .Parents}}p{{else}}none {{end}}{{end}}").unwrap(), "none none ");
    }

    #[test]
    fn json_has_the_names_and_nulls_of_the_original() {
        assert_eq!(apply("json").unwrap(), apply("{{json .}}").unwrap());
        assert!(apply("json").unwrap().starts_with(
            r#"[{"id":"a<","mutable":false,"inUse":false,"size":1,"createdAt":"1970-01-01T00:00:00Z","lastUsedAt":null,"usageCount":0,"parents":null,"description":"","recordType":"","shared":false},"#
        ));
    }

    #[test]
    fn what_is_not_known_is_named() {
        let told = |template: &str| apply(template).unwrap_err();
        assert!(told("{{.ID}}").contains("{{range .}}{{.ID}}{{end}}"));
        assert!(told("{{range .}}{{.Foo}}{{end}}").contains("no field .Foo"));
        assert!(told("{{printf \"%s\" .}}").contains("printf"));
        assert!(told("{{range .}}").contains("not closed"));
        assert!(told("{{end}}").contains("unexpected"));
        assert!(told("{{").contains("}}"));
    }
}
