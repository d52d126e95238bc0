//! A build as a trace: what took how long, for `docker buildx history trace` and Jaeger. Each step that was done is a
//! span below that of the build, each part of a step one below the step's. The form is that of Go's OpenTelemetry
//! library in JSON, one span after the other (`application/vnd.buildkit.otlp.json.v0`).

use crosskit_api::control::{BuildHistoryRecord, StatusResponse, Vertex, VertexStatus};
use indexmap::IndexMap;
use prost_types::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::SystemTime;

/// Spans of a trace at most: steps from the cache are left out of larger ones, as they take no time.
const SPANS: usize = 10_000;

/// Go's name of a span within one process.
const INTERNAL: u32 = 1;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Span<'a> {
    name: &'a str,
    span_context: Context,
    parent: Context,
    span_kind: u32,
    start_time: String,
    end_time: String,
    attributes: Vec<Attribute<'a>>,
    events: [(); 0],
    links: [(); 0],
    status: State<'a>,
    child_span_count: usize,
    resource: [Attribute<'static>; 1],
    instrumentation_library: Library,
}

#[derive(Clone, Serialize)]
struct Context {
    #[serde(rename = "TraceID")]
    trace: String,
    #[serde(rename = "SpanID")]
    span: String,
    #[serde(rename = "TraceFlags")]
    flags: &'static str,
    #[serde(rename = "TraceState")]
    state: &'static str,
    #[serde(rename = "Remote")]
    remote: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(tag = "Type", content = "Value")]
enum Value<'a> {
    #[serde(rename = "STRING")]
    Text(&'a str),
    #[serde(rename = "BOOL")]
    Flag(bool),
    #[serde(rename = "INT64")]
    Number(i64),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct State<'a> {
    code: &'static str,
    description: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Library {
    name: &'static str,
    version: &'static str,
}

/// The trace of an ended build from all that was said of it.
pub fn of(record: &BuildHistoryRecord, progress: &[StatusResponse]) -> Vec<u8> {
    let mut steps: IndexMap<&str, &Vertex> = IndexMap::new();
    for vertex in progress.iter().flat_map(|part| &part.vertexes) {
        if vertex.started.is_some() && vertex.completed.is_some() {
            steps.insert(&vertex.digest, vertex);
        }
    }
    if steps.len() > SPANS {
        steps.retain(|_, step| !step.cached);
    }
    let mut parts: IndexMap<(&str, &str), &VertexStatus> = IndexMap::new();
    for part in progress.iter().flat_map(|part| &part.statuses) {
        let done = part.started.is_some() && part.completed.is_some();
        if done && steps.len() + parts.len() < SPANS && steps.contains_key(part.vertex.as_str()) {
            parts.insert((&part.vertex, &part.id), part);
        }
    }
    let trace = Trace::of(record);
    let mut bytes = Vec::new();
    trace.build(record, steps.len(), &mut bytes);
    let mut own: HashMap<&str, usize> = HashMap::new();
    for (step, _) in parts.keys() {
        *own.entry(step).or_default() += 1;
    }
    for step in steps.values() {
        trace.step(step, own.get(step.digest.as_str()).copied().unwrap_or_default(), &mut bytes);
    }
    for part in parts.values() {
        trace.part(part, &mut bytes);
    }
    bytes
}

struct Trace<'a> {
    id: String,
    build: &'a str,
}

impl<'a> Trace<'a> {
    fn of(record: &'a BuildHistoryRecord) -> Self {
        let id = hex::encode(&Sha256::digest(record.r#ref.as_bytes())[..16]);
        Trace { id, build: &record.r#ref }
    }

    fn context(&self, parts: &[&str]) -> Context {
        let mut hash = Sha256::new();
        for part in [self.build].iter().chain(parts) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let span = hex::encode(&hash.finalize()[..8]);
        Context { trace: self.id.clone(), span, flags: "01", state: "", remote: false }
    }

    fn nothing() -> Context {
        Context { trace: "0".repeat(32), span: "0".repeat(16), flags: "00", state: "", remote: false }
    }

    fn build(&self, record: &BuildHistoryRecord, children: usize, bytes: &mut Vec<u8>) {
        let frontend = record.frontend.as_str();
        let attributes = vec![
            Attribute { key: "ref", value: Value::Text(self.build) },
            Attribute { key: "frontend", value: Value::Text(frontend) },
        ];
        let error = record.error.as_ref().map_or("", |error| error.message.as_str());
        let span = Span {
            name: "build",
            span_context: self.context(&[]),
            parent: Self::nothing(),
            attributes,
            child_span_count: children,
            ..Span::from_to(record.created_at, record.completed_at, error)
        };
        span.write(bytes);
    }

    fn step(&self, step: &Vertex, children: usize, bytes: &mut Vec<u8>) {
        let attributes = vec![
            Attribute { key: "vertex", value: Value::Text(&step.digest) },
            Attribute { key: "cached", value: Value::Flag(step.cached) },
        ];
        let span = Span {
            name: &step.name,
            span_context: self.context(&[&step.digest]),
            parent: self.context(&[]),
            attributes,
            child_span_count: children,
            ..Span::from_to(step.started, step.completed, &step.error)
        };
        span.write(bytes);
    }

    fn part(&self, part: &VertexStatus, bytes: &mut Vec<u8>) {
        let mut attributes = vec![Attribute { key: "vertex", value: Value::Text(&part.vertex) }];
        if part.total > 0 {
            attributes.push(Attribute { key: "total", value: Value::Number(part.total) });
        }
        let span = Span {
            name: &part.id,
            span_context: self.context(&[&part.vertex, &part.id]),
            parent: self.context(&[&part.vertex]),
            attributes,
            ..Span::from_to(part.started, part.completed, "")
        };
        span.write(bytes);
    }
}

impl<'a> Span<'a> {
    fn from_to(start: Option<Timestamp>, end: Option<Timestamp>, error: &'a str) -> Self {
        let time = |at: Option<Timestamp>| {
            let at = at.and_then(|at| SystemTime::try_from(at).ok()).unwrap_or(SystemTime::UNIX_EPOCH);
            crosskit_images::gojson::time(at)
        };
        Span {
            name: "",
            span_context: Trace::nothing(),
            parent: Trace::nothing(),
            span_kind: INTERNAL,
            start_time: time(start),
            end_time: time(end),
            attributes: Vec::new(),
            events: [],
            links: [],
            status: State { code: if error.is_empty() { "Unset" } else { "Error" }, description: error },
            child_span_count: 0,
            resource: [Attribute { key: "service.name", value: Value::Text("buildkitd") }],
            instrumentation_library: Library { name: "crosskit", version: env!("CARGO_PKG_VERSION") },
        }
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        // Nothing in it can fail to be written.
        if let Ok(json) = crosskit_images::gojson::to_vec(self) {
            bytes.extend_from_slice(&json);
            bytes.push(b'\n');
        }
    }
}
