//! JSON as Go's encoder writes it: fields in the order of the Go structures, empty ones left
//! out, `<`, `>` and `&` escaped. BuildKit hashes such JSON for its cache keys, so each byte
//! counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_api::pb;

use crate::Digest;

/// What Go's encoder can write as an object.
pub trait GoJson {
    /// Adds the fields, in the order of the Go structure.
    fn fields(&self, object: &mut Object<'_>);
}

/// The JSON of one message.
pub fn to_string(value: &impl GoJson) -> String {
    let mut out = String::new();
    write_object(&mut out, value);
    out
}

/// The JSON of a list of texts.
pub fn strings(values: &[String]) -> String {
    let mut out = String::new();
    write_list(&mut out, values, |out, value| write_string(out, value));
    out
}

/// The JSON of one message over many lines, each level two blanks further in.
pub fn to_string_indented(value: &impl GoJson) -> String {
    indent(&to_string(value))
}

/// The JSON of a list over many lines.
pub fn list_indented<T: GoJson>(values: &[T]) -> String {
    let mut out = String::new();
    write_list(&mut out, values, |out, value| write_object(out, value));
    indent(&out)
}

fn indent(compact: &str) -> String {
    let mut out = String::with_capacity(compact.len() * 2);
    let mut depth = 0;
    let mut quoted = false;
    let mut chars = compact.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            match c {
                '\\' => out.extend(chars.next()),
                '"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(end) = chars.next_if(|end| matches!(end, '}' | ']')) {
                    out.push(end);
                    continue;
                }
                depth += 1;
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                quoted = true;
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// One line of `buildctl debug dump-llb`, without its end.
pub fn dump_line(op: &pb::Op, digest: &Digest, metadata: &pb::OpMetadata) -> String {
    let mut out = String::from("{\"Op\":");
    write_object(&mut out, op);
    out.push_str(",\"Digest\":");
    write_string(&mut out, &digest.to_string());
    out.push_str(",\"OpMetadata\":");
    write_object(&mut out, metadata);
    out.push('}');
    out
}

/// Writes a text with Go's escapes.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, ch) in text.char_indices() {
        let escape = match ch {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escape);
        if escape.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", ch as u32);
        }
        plain = at + ch.len_utf8();
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

fn write_object(out: &mut String, value: &(impl GoJson + ?Sized)) {
    out.push('{');
    value.fields(&mut Object { out, first: true });
    out.push('}');
}

fn write_list<T>(out: &mut String, values: &[T], mut write: impl FnMut(&mut String, &T)) {
    out.push('[');
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        write(out, value);
    }
    out.push(']');
}

/// An object that is being written. Empty values are left out unless said otherwise.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

impl Object<'_> {
    fn key(&mut self, name: &str) -> &mut String {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(',');
        }
        write_string(self.out, name);
        self.out.push(':');
        self.out
    }

    /// A text.
    pub fn string(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            write_string(self.key(name), value);
        }
    }

    /// A text, also when empty.
    pub fn string_always(&mut self, name: &str, value: &str) {
        write_string(self.key(name), value);
    }

    /// Texts, also when there are none; `null` for no list at all.
    pub fn strings_or_null(&mut self, name: &str, values: Option<&[String]>) {
        let out = self.key(name);
        match values {
            Some(values) => write_list(out, values, |out, value| write_string(out, value)),
            None => out.push_str("null"),
        }
    }

    /// A number, left out when 0.
    pub fn number(&mut self, name: &str, value: impl Into<i128>) {
        let value = value.into();
        if value != 0 {
            self.number_always(name, value);
        }
    }

    /// A number, also when 0.
    pub fn number_always(&mut self, name: &str, value: impl Into<i128>) {
        let value = value.into();
        let _ = write!(self.key(name), "{value}");
    }

    /// A flag, left out when not set.
    pub fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.key(name).push_str("true");
        }
    }

    /// Bytes as base64.
    pub fn bytes(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            write_string(self.key(name), &STANDARD.encode(value));
        }
    }

    /// Texts.
    pub fn strings(&mut self, name: &str, values: &[String]) {
        if !values.is_empty() {
            write_list(self.key(name), values, |out, value| write_string(out, value));
        }
    }

    /// Numbers.
    pub fn numbers<T: Copy + Into<i128>>(&mut self, name: &str, values: &[T]) {
        if !values.is_empty() {
            write_list(self.key(name), values, |out, value| {
                let _ = write!(out, "{}", (*value).into());
            });
        }
    }

    /// A list of bytes as base64 texts.
    pub fn byte_strings(&mut self, name: &str, values: &[Vec<u8>]) {
        if !values.is_empty() {
            write_list(self.key(name), values, |out, value| {
                write_string(out, &STANDARD.encode(value));
            });
        }
    }

    /// An object, left out when there is none.
    pub fn object(&mut self, name: &str, value: Option<&(impl GoJson + ?Sized)>) {
        if let Some(value) = value {
            write_object(self.key(name), value);
        }
    }

    /// Objects.
    pub fn objects<T: GoJson>(&mut self, name: &str, values: &[T]) {
        if !values.is_empty() {
            write_list(self.key(name), values, |out, value| write_object(out, value));
        }
    }

    /// Objects, also when there are none.
    pub fn objects_always<T: GoJson>(&mut self, name: &str, values: &[T]) {
        write_list(self.key(name), values, |out, value| write_object(out, value));
    }

    /// What is not there.
    pub fn null(&mut self, name: &str) {
        self.key(name).push_str("null");
    }

    /// A map of objects.
    pub fn object_map<T: GoJson>(&mut self, name: &str, map: &BTreeMap<String, T>) {
        self.map(name, map, |out, value| write_object(out, value));
    }

    /// A map of texts.
    pub fn string_map(&mut self, name: &str, map: &BTreeMap<String, String>) {
        self.map(name, map, |out, value| write_string(out, value));
    }

    /// A map of flags.
    pub fn flag_map(&mut self, name: &str, map: &BTreeMap<String, bool>) {
        self.map(name, map, |out, value| out.push_str(if *value { "true" } else { "false" }));
    }

    fn map<T>(&mut self, name: &str, map: &BTreeMap<String, T>, mut write: impl FnMut(&mut String, &T)) {
        if map.is_empty() {
            return;
        }
        let out = self.key(name);
        out.push('{');
        for (position, (key, value)) in map.iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            write_string(out, key);
            out.push(':');
            write(out, value);
        }
        out.push('}');
    }
}
