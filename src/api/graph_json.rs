//! Operations of graphs as JSON, as Go's encoder writes BuildKit's messages (`solver/pb/json.go`): provenance carries
//! whole graphs in this form.

use crate::errors::schema::{LOCATIONS, OP};
use crate::errors::transcode::{self, Dialect};
use crate::pb;
use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Map, Value, json};

/// The kinds of operations.
const KINDS: [&str; 7] = ["exec", "source", "file", "build", "merge", "diff", "passthrough"];

/// The kinds of file actions.
const ACTIONS: [&str; 5] = ["copy", "mkfile", "mkdir", "rm", "symlink"];

/// An operation.
pub fn op(op: &pb::Op) -> Value {
    let mut flat = plain(&OP, &op.encode_to_vec());
    if let Some(actions) = flat.get_mut("file").and_then(|file| file.get_mut("actions")) {
        for one in actions.as_array_mut().into_iter().flatten() {
            *one = action(one.take());
        }
    }
    gathered(flat, "Op", &KINDS)
}

/// Where something is written.
pub fn locations(locations: &pb::Locations) -> Value {
    Value::Object(plain(&LOCATIONS, &locations.encode_to_vec()))
}

/// Bytes as they stand in JSON.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn plain(schema: &crate::errors::schema::Schema, wire: &[u8]) -> Map<String, Value> {
    // What we encoded ourselves is well-formed, so only depth could fail here.
    match transcode::to_json(schema, Dialect::Plain, wire) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// The members of these names under one of their own.
fn gathered(mut flat: Map<String, Value>, under: &str, names: &[&str]) -> Value {
    let mut inner = Map::new();
    for name in names {
        if let Some(value) = flat.remove(*name) {
            inner.insert((*name).to_string(), value);
        }
    }
    flat.insert(under.to_string(), Value::Object(inner));
    Value::Object(flat)
}

/// An action: its indices are told even where they are 0.
fn action(value: Value) -> Value {
    let Value::Object(mut flat) = value else { return value };
    for index in ["input", "secondaryInput", "output"] {
        flat.entry(index).or_insert_with(|| json!(0));
    }
    for kind in ACTIONS {
        if let Some(owner) = flat.get_mut(kind).and_then(|action| action.get_mut("owner")) {
            for who in ["user", "group"] {
                if let Some(user) = owner.get_mut(who) {
                    *user = json!({ "User": named(user.take()) });
                }
            }
        }
    }
    gathered(flat, "Action", &ACTIONS)
}

/// A user or group by id or name.
fn named(value: Value) -> Value {
    let Value::Object(mut user) = value else { return value };
    if let Some(id) = user.remove("byID").filter(|id| *id != json!(0)) {
        user.insert("byId".into(), id);
    }
    Value::Object(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_form_of_the_field() {
        let run = pb::ExecOp {
            meta: Some(pb::Meta { args: vec!["true".into()], ..pb::Meta::default() }),
            ..pb::ExecOp::default()
        };
        let platform =
            pb::Platform { architecture: "arm64".into(), os: "linux".into(), ..pb::Platform::default() };
        let exec = pb::Op { op: Some(pb::op::Op::Exec(run)), platform: Some(platform), ..pb::Op::default() };
        assert_eq!(
            op(&exec),
            json!({"Op": {"exec": {"meta": {"args": ["true"]}}},
                "platform": {"Architecture": "arm64", "OS": "linux"}})
        );
        let user = pb::UserOpt { user: Some(pb::user_opt::User::ById(7)) };
        let mkdir = pb::FileActionMkDir {
            path: "/a".into(),
            owner: Some(pb::ChownOpt { user: Some(user), group: None }),
            ..pb::FileActionMkDir::default()
        };
        let one = pb::FileAction {
            secondary_input: -1,
            action: Some(pb::file_action::Action::Mkdir(mkdir)),
            ..pb::FileAction::default()
        };
        let file =
            pb::Op { op: Some(pb::op::Op::File(pb::FileOp { actions: vec![one] })), ..pb::Op::default() };
        assert_eq!(
            op(&file)["Op"]["file"]["actions"][0],
            json!({"input": 0, "secondaryInput": -1, "output": 0,
                "Action": {"mkdir": {"path": "/a", "owner": {"user": {"User": {"byId": 7}}}}}})
        );
    }
}
