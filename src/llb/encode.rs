//! Operations as bytes. The digest of a vertex is that of its bytes, so they have to be those
//! that Go's protobuf runtime writes in deterministic mode: the members of a oneof come after
//! all other fields of their message, maps are sorted by key, and an entry of a map always
//! has both its key and its value.

use std::collections::BTreeMap;

use crosskit_api::pb;
use prost::Message;

/// The bytes of an operation, equal to those of BuildKit's client library.
pub fn encode_op(op: &pb::Op) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    for input in &op.inputs {
        message(&mut out, 1, input);
    }
    if let Some(platform) = &op.platform {
        message(&mut out, 10, platform);
    }
    if let Some(constraints) = &op.constraints {
        message(&mut out, 11, constraints);
    }
    string(&mut out, 1000, &op.proxy_rules);
    match &op.op {
        None => {}
        Some(pb::op::Op::Exec(exec)) => message(&mut out, 2, exec),
        Some(pb::op::Op::Source(source)) => bytes(&mut out, 3, &encode_source(source)),
        Some(pb::op::Op::File(file)) => message(&mut out, 4, file),
        Some(pb::op::Op::Build(build)) => bytes(&mut out, 5, &encode_build(build)),
        Some(pb::op::Op::Merge(merge)) => message(&mut out, 6, merge),
        Some(pb::op::Op::Diff(diff)) => message(&mut out, 7, diff),
        Some(pb::op::Op::Passthrough(pass)) => message(&mut out, 8, pass),
    }
    out
}

fn encode_source(source: &pb::SourceOp) -> Vec<u8> {
    let mut out = Vec::new();
    string(&mut out, 1, &source.identifier);
    string_map(&mut out, 2, &source.attrs);
    out
}

fn encode_build(build: &pb::BuildOp) -> Vec<u8> {
    let mut out = Vec::new();
    if build.builder != 0 {
        varint(&mut out, 1 << 3);
        varint(&mut out, build.builder as u64);
    }
    for (key, value) in &build.inputs {
        entry(&mut out, 2, key, &value.encode_to_vec());
    }
    if let Some(def) = &build.def {
        bytes(&mut out, 3, &encode_definition(def));
    }
    string_map(&mut out, 4, &build.attrs);
    out
}

fn encode_definition(def: &pb::Definition) -> Vec<u8> {
    let mut out = Vec::new();
    for op in &def.def {
        bytes(&mut out, 1, op);
    }
    for (key, value) in &def.metadata {
        entry(&mut out, 2, key, &encode_metadata(value));
    }
    if let Some(source) = &def.source {
        bytes(&mut out, 3, &encode_source_map(source));
    }
    out
}

fn encode_metadata(metadata: &pb::OpMetadata) -> Vec<u8> {
    let mut out = Vec::new();
    if metadata.ignore_cache {
        out.extend([1 << 3, 1]);
    }
    string_map(&mut out, 2, &metadata.description);
    if let Some(export) = &metadata.export_cache {
        message(&mut out, 4, export);
    }
    for (key, value) in &metadata.caps {
        let mut pair = Vec::new();
        bytes(&mut pair, 1, key.as_bytes());
        pair.extend([2 << 3, u8::from(*value)]);
        bytes(&mut out, 5, &pair);
    }
    if let Some(group) = &metadata.progress_group {
        message(&mut out, 6, group);
    }
    if let Some(resources) = &metadata.linux_resources {
        message(&mut out, 7, resources);
    }
    out
}

fn encode_source_map(source: &pb::Source) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in &source.locations {
        entry(&mut out, 1, key, &value.encode_to_vec());
    }
    for info in &source.infos {
        let mut inner = Vec::new();
        string(&mut inner, 1, &info.filename);
        if !info.data.is_empty() {
            bytes(&mut inner, 2, &info.data);
        }
        if let Some(def) = &info.definition {
            bytes(&mut inner, 3, &encode_definition(def));
        }
        string(&mut inner, 4, &info.language);
        bytes(&mut out, 2, &inner);
    }
    out
}

fn string_map(out: &mut Vec<u8>, field: u32, map: &BTreeMap<String, String>) {
    for (key, value) in map {
        entry(out, field, key, value.as_bytes());
    }
}

/// An entry of a map whose values are length-delimited.
fn entry(out: &mut Vec<u8>, field: u32, key: &str, value: &[u8]) {
    let mut pair = Vec::with_capacity(key.len() + value.len() + 8);
    bytes(&mut pair, 1, key.as_bytes());
    bytes(&mut pair, 2, value);
    bytes(out, field, &pair);
}

fn string(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        bytes(out, field, value.as_bytes());
    }
}

fn message(out: &mut Vec<u8>, field: u32, value: &impl Message) {
    varint(out, u64::from(field << 3 | 2));
    varint(out, value.encoded_len() as u64);
    value.encode_raw(out);
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    varint(out, u64::from(field << 3 | 2));
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
