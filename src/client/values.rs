//! What `--format` templates are applied to: records with the names that Go programs know, both
//! those of templates (`.LastUsedAt`) and those of JSON (`lastUsedAt`).

use crate::times;
use crosskit_api::control::{
    BuildHistoryEvent, BuildHistoryRecord, BuildResultInfo, Descriptor, InfoResponse, UsageRecord,
};
use crosskit_api::farm::Worker as FarmWorker;
use crosskit_api::pb;
use crosskit_api::types::{BuildkitVersion, WorkerRecord};
use prost_types::Timestamp;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// A value in a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    Time(Timestamp),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    Record(Vec<Field>),
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    key: &'static str,
    pub(crate) value: Value,
    /// Left out of JSON where it is zero.
    optional: bool,
}

fn must(name: &'static str, key: &'static str, value: impl Into<Value>) -> Field {
    Field { name, key, value: value.into(), optional: false }
}

fn may(name: &'static str, key: &'static str, value: impl Into<Value>) -> Field {
    Field { name, key, value: value.into(), optional: true }
}

/// A worker behind an endpoint.
pub(crate) fn farm_worker(worker: &FarmWorker) -> Value {
    let number = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    let text = |t: &String| Value::Text(t.clone());
    Value::Record(vec![
        must("Name", "name", text(&worker.name)),
        must("Kind", "kind", text(&worker.kind)),
        must("State", "state", text(&worker.state)),
        may("Why", "why", text(&worker.why)),
        must("Platforms", "platforms", Value::List(worker.platforms.iter().map(text).collect())),
        may("Slots", "slots", number(worker.slots)),
        must("Running", "running", number(worker.running)),
        must("Waiting", "waiting", number(worker.waiting)),
        must("Finished", "finished", number(worker.finished)),
        must("Failed", "failed", number(worker.failed)),
        must("Sent", "sent", number(worker.sent)),
        must("Received", "received", number(worker.received)),
        may("Address", "address", text(&worker.address)),
        may("Version", "version", text(&worker.version)),
    ])
}

impl Value {
    /// What counts as nothing in conditions and is left out of optional fields.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Value::None => true,
            Value::Bool(b) => !b,
            Value::Int(n) => *n == 0,
            Value::Text(s) => s.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Time(_) | Value::Record(_) => false,
        }
    }
}

macro_rules! into_value {
    ($($type:ty => $make:expr),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(from: $type) -> Value {
                let make: fn($type) -> Value = $make;
                make(from)
            }
        }
    )*};
}

into_value! {
    bool => Value::Bool,
    i32 => |n| Value::Int(n.into()),
    i64 => Value::Int,
    &str => |s| Value::Text(s.to_owned()),
    String => Value::Text,
    &String => |s| Value::Text(s.clone()),
    Vec<Value> => Value::List,
    &[String] => |list| Value::List(list.iter().map(Value::from).collect()),
    &BTreeMap<String, String> => |map| Value::Map(map.iter().map(|(k, v)| (k.clone(), Value::from(v))).collect()),
    Option<Timestamp> => |at| at.map_or(Value::None, Value::Time),
}

/// A list that Go writes as `null` if it is empty.
fn or_null(list: &[String]) -> Value {
    if list.is_empty() { Value::None } else { list.into() }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::None => to.serialize_none(),
            Value::Bool(b) => to.serialize_bool(*b),
            Value::Int(n) => to.serialize_i64(*n),
            Value::Text(s) => to.serialize_str(s),
            Value::Time(at) => to.serialize_str(&times::rfc3339(at)),
            Value::List(list) => {
                let mut seq = to.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|v| seq.serialize_element(v))?;
                seq.end()
            }
            Value::Map(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(k, v)| map.serialize_entry(k, v))?;
                map.end()
            }
            Value::Record(fields) => {
                let mut map = to.serialize_map(None)?;
                let shown = fields.iter().filter(|f| !(f.optional && f.value.is_zero()));
                shown.into_iter().try_for_each(|f| map.serialize_entry(f.key, &f.value))?;
                map.end()
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, items: Vec<String>| f.write_str(&items.join(" "));
        match self {
            Value::None => f.write_str("<nil>"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::Text(s) => f.write_str(s),
            Value::Time(at) => f.write_str(&times::verbose(at)),
            Value::List(list) => {
                f.write_str("[")?;
                joined(f, list.iter().map(ToString::to_string).collect())?;
                f.write_str("]")
            }
            Value::Map(entries) => {
                f.write_str("map[")?;
                joined(f, entries.iter().map(|(k, v)| format!("{k}:{v}")).collect())?;
                f.write_str("]")
            }
            Value::Record(fields) => {
                f.write_str("{")?;
                joined(f, fields.iter().map(|field| field.value.to_string()).collect())?;
                f.write_str("}")
            }
        }
    }
}

/// A record of the build cache.
pub(crate) fn usage(record: &UsageRecord) -> Value {
    Value::Record(vec![
        must("ID", "id", &record.id),
        must("Mutable", "mutable", record.mutable),
        must("InUse", "inUse", record.in_use),
        must("Size", "size", record.size),
        must("CreatedAt", "createdAt", Value::Time(record.created_at.unwrap_or_default())),
        must("LastUsedAt", "lastUsedAt", record.last_used_at),
        must("UsageCount", "usageCount", record.usage_count),
        must("Parents", "parents", or_null(&record.parents)),
        must("Description", "description", &record.description),
        must("RecordType", "recordType", &record.record_type),
        must("Shared", "shared", record.shared),
    ])
}

fn version(version: Option<&BuildkitVersion>) -> Value {
    let none = BuildkitVersion::default();
    let version = version.unwrap_or(&none);
    Value::Record(vec![
        must("Package", "package", &version.package),
        must("Version", "version", &version.version),
        must("Revision", "revision", &version.revision),
        may("DockerfileVersion", "dockerfileVersion", &version.dockerfile_version),
    ])
}

/// What a daemon tells about itself.
pub(crate) fn info(info: &InfoResponse) -> Value {
    Value::Record(vec![must("BuildkitVersion", "buildkitVersion", version(info.buildkit_version.as_ref()))])
}

fn platform(platform: &pb::Platform) -> Value {
    Value::Record(vec![
        must("Architecture", "architecture", &platform.architecture),
        must("OS", "os", &platform.os),
        may("OSVersion", "os.version", &platform.os_version),
        may("OSFeatures", "os.features", platform.os_features.as_slice()),
        may("Variant", "variant", &platform.variant),
    ])
}

/// A worker.
pub(crate) fn worker(worker: &WorkerRecord) -> Value {
    let rules = worker.gc_policy.iter().map(|rule| {
        Value::Record(vec![
            must("All", "all", rule.all),
            must("Filter", "filter", or_null(&rule.filters)),
            must("KeepDuration", "keepDuration", rule.keep_duration),
            must("ReservedSpace", "reservedSpace", rule.reserved_space),
            must("MaxUsedSpace", "maxUsedSpace", rule.max_used_space),
            must("MinFreeSpace", "minFreeSpace", rule.min_free_space),
        ])
    });
    let devices: Vec<Value> = worker
        .cdi_devices
        .iter()
        .map(|device| {
            Value::Record(vec![
                must("Name", "name", &device.name),
                must("AutoAllow", "autoAllow", device.auto_allow),
                must("Annotations", "annotations", &device.annotations),
                must("OnDemand", "onDemand", device.on_demand),
            ])
        })
        .collect();
    Value::Record(vec![
        must("ID", "id", &worker.id),
        must("Labels", "labels", &worker.labels),
        must("Platforms", "platforms", worker.platforms.iter().map(platform).collect::<Vec<_>>()),
        must("GCPolicy", "gcPolicy", rules.collect::<Vec<_>>()),
        must("BuildkitVersion", "buildkitVersion", version(worker.buildkit_version.as_ref())),
        must("CDIDevices", "cdiDevices", if devices.is_empty() { Value::None } else { Value::List(devices) }),
    ])
}

/// A time as messages on the wire carry it.
fn wire_time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::None, |at| {
        Value::Record(vec![may("Seconds", "seconds", at.seconds), may("Nanos", "nanos", at.nanos)])
    })
}

fn descriptor(descriptor: Option<&Descriptor>) -> Value {
    descriptor.map_or(Value::None, |d| {
        Value::Record(vec![
            may("MediaType", "media_type", &d.media_type),
            may("Digest", "digest", &d.digest),
            may("Size", "size", d.size),
            may("Annotations", "annotations", &d.annotations),
        ])
    })
}

fn result(result: Option<&BuildResultInfo>) -> Value {
    result.map_or(Value::None, |r| {
        let results = r.results.iter().map(|(n, d)| (n.to_string(), descriptor(Some(d)))).collect();
        Value::Record(vec![
            may("ResultDeprecated", "ResultDeprecated", descriptor(r.result_deprecated.as_ref())),
            may(
                "Attestations",
                "Attestations",
                r.attestations.iter().map(|a| descriptor(Some(a))).collect::<Vec<_>>(),
            ),
            may("Results", "Results", Value::Map(results)),
        ])
    })
}

/// Something that happened to a record of a build.
pub(crate) fn history(event: &BuildHistoryEvent) -> Value {
    Value::Record(vec![
        may("Type", "type", event.r#type),
        may("Record", "record", event.record.as_ref().map_or(Value::None, record)),
    ])
}

fn record(record: &BuildHistoryRecord) -> Value {
    let exporter = |e: &crosskit_api::control::Exporter| {
        Value::Record(vec![may("Type", "Type", &e.r#type), may("Attrs", "Attrs", &e.attrs)])
    };
    let error = record.error.as_ref().map_or(Value::None, |e| {
        Value::Record(vec![may("Code", "code", e.code), may("Message", "message", &e.message)])
    });
    let results = record.results.iter().map(|(k, r)| (k.clone(), result(Some(r)))).collect();
    Value::Record(vec![
        may("Ref", "Ref", &record.r#ref),
        may("Frontend", "Frontend", &record.frontend),
        may("FrontendAttrs", "FrontendAttrs", &record.frontend_attrs),
        may("Exporters", "Exporters", record.exporters.iter().map(exporter).collect::<Vec<_>>()),
        may("Error", "error", error),
        may("CreatedAt", "CreatedAt", wire_time(record.created_at)),
        may("CompletedAt", "CompletedAt", wire_time(record.completed_at)),
        may("Logs", "logs", descriptor(record.logs.as_ref())),
        may("ExporterResponse", "ExporterResponse", &record.exporter_response),
        may("Result", "Result", result(record.result.as_ref())),
        may("Results", "Results", Value::Map(results)),
        may("Generation", "Generation", record.generation),
        may("Trace", "trace", descriptor(record.trace.as_ref())),
        may("Pinned", "pinned", record.pinned),
        may("NumCachedSteps", "numCachedSteps", record.num_cached_steps),
        may("NumTotalSteps", "numTotalSteps", record.num_total_steps),
        may("NumCompletedSteps", "numCompletedSteps", record.num_completed_steps),
        may("ExternalError", "externalError", descriptor(record.external_error.as_ref())),
        may("NumWarnings", "numWarnings", record.num_warnings),
    ])
}
