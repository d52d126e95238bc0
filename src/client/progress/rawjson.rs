//! Progress as one JSON object per line, in the form of BuildKit's `client.SolveStatus`.

use crate::times;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_api::control::{StatusResponse, VertexWarning};
use crosskit_api::json;
use crosskit_llb::json::GoJson;
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<Task<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning<'a>>,
}

#[derive(Serialize)]
struct Vertex<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    digest: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    inputs: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
    #[serde(rename = "progressGroup", skip_serializing_if = "Option::is_none")]
    progress_group: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Task<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: i64,
    current: i64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct Log<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    stream: i64,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct Warning<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    vertex: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    level: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'a str,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Box<RawValue>>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

/// A message of the graph, which knows its own form.
fn raw(message: &impl GoJson) -> Option<Box<RawValue>> {
    RawValue::from_string(crosskit_llb::json::to_string(message)).ok()
}

/// Appends one line.
pub(crate) fn print(status: &StatusResponse, out: &mut Vec<u8>) {
    let time = |at: &Option<Timestamp>| at.as_ref().map(times::rfc3339);
    let moment = |at: &Option<Timestamp>| times::rfc3339(&at.unwrap_or_default());
    let warning = |w: &'_ VertexWarning| {
        (STANDARD.encode(&w.short), w.detail.iter().map(|d| STANDARD.encode(d)).collect())
    };
    let line = Status {
        vertexes: status
            .vertexes
            .iter()
            .map(|v| Vertex {
                digest: &v.digest,
                inputs: &v.inputs,
                name: &v.name,
                started: time(&v.started),
                completed: time(&v.completed),
                cached: v.cached,
                error: &v.error,
                progress_group: v.progress_group.as_ref().and_then(raw),
            })
            .collect(),
        statuses: status
            .statuses
            .iter()
            .map(|s| Task {
                id: &s.id,
                vertex: &s.vertex,
                name: &s.name,
                total: s.total,
                current: s.current,
                timestamp: moment(&s.timestamp),
                started: time(&s.started),
                completed: time(&s.completed),
            })
            .collect(),
        logs: status
            .logs
            .iter()
            .map(|l| Log {
                vertex: &l.vertex,
                stream: l.stream,
                data: STANDARD.encode(&l.msg),
                timestamp: moment(&l.timestamp),
            })
            .collect(),
        warnings: status
            .warnings
            .iter()
            .map(|w| {
                let (short, detail) = warning(w);
                let (source_info, range) =
                    (w.info.as_ref().and_then(raw), w.ranges.iter().filter_map(raw).collect());
                Warning { vertex: &w.vertex, level: w.level, short, detail, url: &w.url, source_info, range }
            })
            .collect(),
    };
    // Nothing here can fail to encode: all keys are texts.
    if let Ok(mut text) = json::to_vec(&line) {
        text.push(b'\n');
        out.append(&mut text);
    }
}
