//! What is remembered of a build: what was asked, what came of it, all that was said, how its results were made.

use crate::builds::Done;
use crate::history::{History, HistoryError};
use crosskit_api::control as api;
use crosskit_gateway::GatewayError;
use crosskit_gateway::provenance::Sketch;
use crosskit_images::gojson;
use crosskit_llb::names::redacted;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::OwnedRwLockReadGuard;

/// What a build's error in full is called, as its clients spell it (BuildKit `solver/llbsolver/history`).
const ERROR_TYPE: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// What provenance is called, and where its own type stands.
const ATTESTED_TYPE: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// A build that has ended, before it is written down.
pub struct Remembering {
    record: api::BuildHistoryRecord,
    progress: Vec<api::StatusResponse>,
    error: Option<Vec<u8>>,
    sketches: Vec<(String, Sketch)>,
    by_platform: bool,
}

/// The record of a build that begins. Passwords in addresses and keys of caches aren't remembered.
pub fn started(request: &api::SolveRequest) -> api::BuildHistoryRecord {
    let shown = |attrs: &BTreeMap<String, String>| {
        let shown = |key: &str, value: &str| match key {
            "cache-imports" => crosskit_remotecache::without_secrets(value),
            _ => redacted(value),
        };
        attrs.iter().map(|(key, value)| (key.clone(), shown(key, value))).collect()
    };
    let exporter =
        |given: &api::Exporter| api::Exporter { r#type: given.r#type.clone(), attrs: shown(&given.attrs) };
    api::BuildHistoryRecord {
        r#ref: request.r#ref.clone(),
        frontend: request.frontend.clone(),
        frontend_attrs: shown(&request.frontend_attrs),
        exporters: request.exporters.iter().map(exporter).collect(),
        created_at: Some(SystemTime::now().into()),
        ..api::BuildHistoryRecord::default()
    }
}

impl Remembering {
    /// What came of a build.
    pub(crate) fn of(
        mut record: api::BuildHistoryRecord,
        outcome: &mut Result<Done, GatewayError>,
        progress: Vec<api::StatusResponse>,
    ) -> Self {
        record.completed_at = Some(SystemTime::now().into());
        let (mut error, mut sketches, mut by_platform) = (None, Vec::new(), false);
        match outcome {
            Ok(done) => {
                // Clients that look into records find the images' configurations and platforms there, without passwords of
                // addresses.
                let said = std::mem::take(&mut done.metadata).into_iter();
                let said = said.map(|(key, value)| (key, redacted(&String::from_utf8_lossy(&value))));
                record.exporter_response = said.chain(done.exported.response.clone()).collect();
                record.result = Some(api::BuildResultInfo {
                    result_deprecated: done.exported.results.values().next().cloned(),
                    attestations: Vec::new(),
                    results: done.exported.results.clone(),
                });
                sketches = std::mem::take(&mut done.sketches);
                by_platform = done.by_platform;
            }
            Err(failed) => {
                let status = failed.to_rpc();
                error = Some(status.encode_to_vec());
                record.error = Some(crosskit_api::rpc::Status { details: Vec::new(), ..status });
            }
        }
        count(&mut record, &progress);
        Remembering { record, progress, error, sketches, by_platform }
    }

    /// Writes it down, in the background: whoever asks for the build waits for that. `running` is held so long, as the
    /// blobs have no names before.
    pub fn write(self, history: &History, running: Arc<OwnedRwLockReadGuard<()>>) {
        let (history, ending) = (history.clone(), history.ending(&self.record.r#ref));
        tokio::task::spawn_blocking(move || {
            self.keep(&history);
            // Whoever has waited may collect blobs.
            drop(running);
            drop(ending);
        });
    }

    fn keep(mut self, history: &History) {
        if let Err(e) = self.keep_blobs(history) {
            tracing::warn!("remembering build {}: {e}", self.record.r#ref);
        }
        let name = self.record.r#ref.clone();
        if let Err(e) = history.finish(self.record, &self.progress) {
            tracing::warn!("remembering build {name}: {e}");
        }
    }

    fn keep_blobs(&mut self, history: &History) -> Result<(), HistoryError> {
        if let Some(error) = &self.error {
            self.record.external_error = Some(history.keep(ERROR_TYPE, error)?);
        }
        let finished = gojson::time(SystemTime::now());
        for (platform, sketch) in std::mem::take(&mut self.sketches) {
            let predicate = match sketch.predicate() {
                Ok(predicate) => predicate,
                Err(e) => {
                    tracing::debug!("no provenance for the history: {}", e.message());
                    continue;
                }
            };
            let json = predicate.to_json(&finished, BTreeMap::new());
            let mut kept = history.keep(ATTESTED_TYPE, &readable(json))?;
            kept.annotations.insert(PREDICATE_TYPE.to_string(), predicate.predicate_type().to_string());
            let info = match self.by_platform {
                true => self.record.results.entry(platform).or_default(),
                false => self.record.result.get_or_insert_default(),
            };
            info.attestations.push(kept);
        }
        Ok(())
    }
}

/// JSON on many lines, as clients show it to people.
fn readable(json: Vec<u8>) -> Vec<u8> {
    let value = serde_json::from_slice::<serde_json::Value>(&json).ok();
    value.and_then(|value| gojson::to_vec_indent(&value).ok()).unwrap_or(json)
}

fn count(record: &mut api::BuildHistoryRecord, progress: &[api::StatusResponse]) {
    let mut last: BTreeMap<&str, &api::Vertex> = BTreeMap::new();
    for vertex in progress.iter().flat_map(|p| &p.vertexes) {
        last.insert(&vertex.digest, vertex);
    }
    let count = |wanted: fn(&api::Vertex) -> bool| {
        i32::try_from(last.values().filter(|v| wanted(v)).count()).unwrap_or(i32::MAX)
    };
    record.num_total_steps = count(|_| true);
    record.num_cached_steps = count(|v| v.cached);
    record.num_completed_steps = count(|v| v.completed.is_some());
    record.num_warnings =
        i32::try_from(progress.iter().map(|p| p.warnings.len()).sum::<usize>()).unwrap_or(i32::MAX);
}
