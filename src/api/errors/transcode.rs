//! Messages between their wire form and JSON, by schema.
//!
//! Two dialects are in use: plain objects with the fields' own names, numbers as numbers, and
//! protobuf's canonical JSON with camel-case names, enums by name and 64-bit numbers as strings.
//! Reading takes either, in any letter case, and passes over what it doesn't know.

use super::schema::{Field, Kind, Schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::bytes::Buf;
use prost::encoding::{self, WireType};
use serde_json::{Map, Number, Value};

/// How deep messages may lie in one another. A graph's operation needs a dozen.
const MAX_DEPTH: u32 = 64;

/// How JSON is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Plain objects.
    Plain,
    /// Protobuf's canonical JSON.
    Canonical,
}

/// Why a detail could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadDetail(pub(crate) String);

type Result<T> = std::result::Result<T, BadDetail>;

fn bad<T>(what: impl Into<String>) -> Result<T> {
    Err(BadDetail(what.into()))
}

/// The JSON of a message given in wire form.
pub(crate) fn to_json(schema: &Schema, dialect: Dialect, mut wire: &[u8]) -> Result<Value> {
    object(schema, dialect, &mut wire, 0)
}

fn object(schema: &Schema, dialect: Dialect, wire: &mut &[u8], depth: u32) -> Result<Value> {
    if depth > MAX_DEPTH {
        return bad("messages lie too deep in one another");
    }
    let mut found: Vec<Option<Value>> = Vec::new();
    found.resize_with(schema.0.len(), || None);
    while wire.has_remaining() {
        let (tag, wire_type) = encoding::decode_key(wire).map_err(|e| BadDetail(e.to_string()))?;
        let Some(at) = schema.0.iter().position(|f| f.tag == tag) else {
            encoding::skip_field(wire_type, tag, wire, encoding::DecodeContext::default())
                .map_err(|e| BadDetail(e.to_string()))?;
            continue;
        };
        let field = &schema.0[at];
        if let Kind::Map(of) = &field.kind {
            let entry = entry(of, dialect, &mut delimited(wire)?, depth)?;
            let map = found[at].get_or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(entry.0, entry.1);
            }
            continue;
        }
        let packed = wire_type == WireType::LengthDelimited
            && !matches!(field.kind, Kind::Text | Kind::Bytes | Kind::Message(_));
        let mut values = Vec::new();
        if packed {
            let mut all = delimited(wire)?;
            while all.has_remaining() {
                values.push(value(&field.kind, dialect, WireType::Varint, &mut all, depth)?);
            }
        } else {
            values.push(value(&field.kind, dialect, wire_type, wire, depth)?);
        }
        if field.repeated {
            match found[at].get_or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(list) => list.append(&mut values),
                _ => return bad(format!("field {} is no list", field.name)),
            }
        } else {
            found[at] = values.pop();
        }
    }
    let mut out = Map::new();
    for (field, value) in schema.0.iter().zip(found) {
        if let Some(value) = value {
            out.insert(name(field, dialect), value);
        }
    }
    Ok(Value::Object(out))
}

fn name(field: &Field, dialect: Dialect) -> String {
    match dialect {
        Dialect::Plain => field.name.to_owned(),
        Dialect::Canonical => {
            let mut out = String::with_capacity(field.name.len());
            let mut after_underscore = false;
            for c in field.name.chars() {
                match c {
                    '_' => after_underscore = true,
                    c if std::mem::take(&mut after_underscore) => out.push(c.to_ascii_uppercase()),
                    c => out.push(c),
                }
            }
            out
        }
    }
}

fn delimited<'a>(wire: &mut &'a [u8]) -> Result<&'a [u8]> {
    let size = encoding::decode_varint(wire).map_err(|e| BadDetail(e.to_string()))?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > wire.len() {
        return bad("the message is cut off");
    }
    let (head, tail) = wire.split_at(size);
    *wire = tail;
    Ok(head)
}

fn entry(of: &Kind, dialect: Dialect, wire: &mut &[u8], depth: u32) -> Result<(String, Value)> {
    let (mut key, mut held) = (String::new(), None);
    while wire.has_remaining() {
        let (tag, wire_type) = encoding::decode_key(wire).map_err(|e| BadDetail(e.to_string()))?;
        match tag {
            1 => key = text(delimited(wire)?)?,
            2 => held = Some(value(of, dialect, wire_type, wire, depth)?),
            _ => return bad("a map's entry has a third field"),
        }
    }
    let held = match held {
        Some(held) => held,
        None => match of {
            Kind::Message(_) | Kind::Map(_) => Value::Object(Map::new()),
            Kind::Bool => Value::Bool(false),
            Kind::Text | Kind::Bytes => Value::String(String::new()),
            _ => Value::from(0),
        },
    };
    Ok((key, held))
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| BadDetail("a text is not UTF-8".into()))
}

fn value(kind: &Kind, dialect: Dialect, wire_type: WireType, wire: &mut &[u8], depth: u32) -> Result<Value> {
    let scalar = !matches!(kind, Kind::Text | Kind::Bytes | Kind::Message(_) | Kind::Map(_));
    if scalar != (wire_type == WireType::Varint) {
        return bad("a field has another type than expected");
    }
    if !scalar {
        let bytes = delimited(wire)?;
        return Ok(match kind {
            Kind::Bytes => Value::String(STANDARD.encode(bytes)),
            Kind::Message(schema) => object(schema, dialect, &mut &*bytes, depth + 1)?,
            _ => Value::String(text(bytes)?),
        });
    }
    let raw = encoding::decode_varint(wire).map_err(|e| BadDetail(e.to_string()))?;
    let wide = |n: Number| {
        if dialect == Dialect::Canonical { Value::String(n.to_string()) } else { Value::Number(n) }
    };
    // Signed numbers travel as two's complement in 64 bits, so the casts only reinterpret.
    Ok(match kind {
        Kind::Bool => Value::Bool(raw != 0),
        Kind::I32 => Value::from(raw as i32),
        Kind::U32 => Value::from(raw as u32),
        Kind::I64 => wide(Number::from(raw as i64)),
        Kind::U64 => wide(Number::from(raw)),
        Kind::Enum(names) => match names.get(usize::try_from(raw).unwrap_or(usize::MAX)) {
            Some(name) if dialect == Dialect::Canonical => Value::from(*name),
            _ => Value::from(raw as i32),
        },
        _ => return bad("a field has another type than expected"),
    })
}

/// The wire form of a message given as JSON.
pub(crate) fn from_json(schema: &Schema, json: &Value) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    put_object(schema, json, &mut out, 0)?;
    Ok(out)
}

fn put_object(schema: &Schema, json: &Value, out: &mut Vec<u8>, depth: u32) -> Result<()> {
    if depth > MAX_DEPTH {
        return bad("messages lie too deep in one another");
    }
    let Value::Object(members) = json else {
        return if json.is_null() { Ok(()) } else { bad("an object was expected") };
    };
    for (key, held) in members {
        let squeezed = |name: &str| name.replace('_', "").to_ascii_lowercase();
        let Some(field) = schema.0.iter().find(|f| f.name == key || squeezed(f.name) == squeezed(key)) else {
            continue;
        };
        match (&field.kind, held) {
            (_, Value::Null) => {}
            (Kind::Map(of), Value::Object(entries)) => {
                for (key, held) in entries {
                    let mut entry = Vec::new();
                    put(1, &Kind::Text, &Value::String(key.clone()), &mut entry, depth)?;
                    put(2, of, held, &mut entry, depth)?;
                    put_bytes(field.tag, &entry, out)?;
                }
            }
            (_, Value::Array(list)) if field.repeated => {
                for held in list {
                    put(field.tag, &field.kind, held, out, depth)?;
                }
            }
            (_, held) => put(field.tag, &field.kind, held, out, depth)?,
        }
    }
    Ok(())
}

fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    encoding::encode_key(tag, WireType::LengthDelimited, out);
    encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
    Ok(())
}

fn put(tag: u32, kind: &Kind, json: &Value, out: &mut Vec<u8>, depth: u32) -> Result<()> {
    let number = match (kind, json) {
        (Kind::Text, Value::String(s)) => return put_bytes(tag, s.as_bytes(), out),
        (Kind::Bytes, Value::String(s)) => match STANDARD.decode(s) {
            Ok(bytes) => return put_bytes(tag, &bytes, out),
            Err(e) => return bad(format!("bytes are not base64: {e}")),
        },
        (Kind::Message(schema), json) => {
            let mut inner = Vec::new();
            put_object(schema, json, &mut inner, depth + 1)?;
            return put_bytes(tag, &inner, out);
        }
        (Kind::Bool, Value::Bool(b)) => u64::from(*b),
        (Kind::Enum(names), Value::String(s)) => match names.iter().position(|n| n == s) {
            Some(at) => at as u64,
            None => return bad(format!("{s} is no value that is known")),
        },
        (Kind::I32 | Kind::I64 | Kind::U32 | Kind::U64 | Kind::Enum(_), json) => match whole(json) {
            Some(n) => n,
            None => return bad(format!("{json} is no whole number")),
        },
        (_, json) => return bad(format!("{json} is not of the type expected")),
    };
    encoding::encode_key(tag, WireType::Varint, out);
    encoding::encode_varint(number, out);
    Ok(())
}

/// A whole number, as a number or as text, in 64 bits of two's complement.
fn whole(json: &Value) -> Option<u64> {
    match json {
        Value::Number(n) => n.as_u64().or_else(|| n.as_i64().map(|n| n as u64)),
        Value::String(s) => s.parse::<u64>().ok().or_else(|| s.parse::<i64>().ok().map(|n| n as u64)),
        _ => None,
    }
}
