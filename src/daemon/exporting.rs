//! What a build gives away: its results, and its cache.

use crosskit_api::control as api;
use crosskit_exporters::{Export, ExportError, Exporter, Report};
use crosskit_gateway::{FrontendResult, GatewayError, Refs};
use crosskit_remotecache::{CacheExport, CacheExports, CacheOptions, RemoteCacheError};
use crosskit_snapshots::Ref;
use crosskit_solver::{JobContext, Known, StatusUpdate, VertexProgress};
use crosskit_workers::ResultRef;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;
use tonic::Code;

/// Where results and cache of a build go.
pub struct Outputs {
    /// The exporters, in the order they were asked for.
    pub exporters: Vec<Box<dyn Exporter>>,
    /// The caches.
    pub caches: CacheExports,
}

/// The keys by which a result is known, by its platform's id; under an empty id for a single one.
type Trails = Vec<(String, Vec<Known<ResultRef>>)>;

/// Whether a place is with the client, and what the client is told of it.
type Told = (bool, BTreeMap<String, String>);

impl Outputs {
    /// Gets what is elsewhere before anything goes to a client, who could not be given it once more.
    fn secure<'a>(&'a self, export: &'a Export) -> BoxFuture<'a, Result<(), GatewayError>> {
        let mut results: Vec<Ref> = export.by_platform.values().flatten().cloned().collect();
        results.extend(export.single.clone());
        Box::pin(async move {
            if !self.exporters.iter().any(|exporter| exporter.streams()) {
                return Ok(());
            }
            let files =
                self.exporters.iter().any(|exporter| exporter.streams() && exporter.image_layers().is_none());
            for found in results {
                let got = if files { found.materialize().await } else { found.fetch_missing().await };
                got.map_err(|error| GatewayError::new(Code::Unknown, error.to_string()))?;
            }
            Ok(())
        })
    }

    /// Gives everything away: results first, so that caches have the same layers.
    ///
    /// # Errors
    /// The first place that refuses or can't be reached.
    pub async fn give(
        &self,
        result: &FrontendResult,
        mut export: Export,
        job: &JobContext,
        session: &str,
    ) -> Result<Exported, GatewayError> {
        let Outputs { exporters, caches } = self;
        self.secure(&export).await?;
        let trails =
            if caches.inline || !caches.places.is_empty() { trails(result).await } else { Vec::new() };
        let mut response = BTreeMap::new();
        let mut results = BTreeMap::new();
        for (at, exporter) in exporters.iter().enumerate() {
            let step = job.step(exporter.name(), Some(&format!("{session}-export-{at}")));
            let running = step.begin(false);
            let exported = async {
                export.inline_caches = match exporter.image_layers().filter(|_| caches.inline) {
                    Some(form) => {
                        let done = step.part("preparing layers for inline cache");
                        let made = inline_caches(&trails, form, job).await;
                        drop(done);
                        made?
                    }
                    None => BTreeMap::new(),
                };
                let report = Arc::new(Reports(step.clone()));
                exporter.export(&export, report, session).await.map_err(export_error)
            };
            let done = exported.await;
            running.end(done.as_ref().err().map(ToString::to_string).as_deref());
            let told = done?;
            if let Some(desc) = told.get(DESCRIPTOR).and_then(|text| descriptor(text)) {
                results.insert(i64::try_from(at).unwrap_or(i64::MAX), desc);
            }
            response.extend(told);
        }
        let known: Vec<&[Known<ResultRef>]> = trails.iter().map(|(_, trail)| trail.as_slice()).collect();
        let mut places = Vec::with_capacity(caches.places.len());
        for (at, place) in caches.places.iter().enumerate() {
            let id = format!("{session}-cache-{at}");
            places.push(given(place, &known, job, id));
        }
        let mut told = futures::future::try_join_all(places).await?;
        // Clients enter the manifest into the index of a folder: that of a folder counts most.
        told.sort_by_key(|(with_client, _)| *with_client);
        for (_, told) in told {
            response.extend(told.into_iter().filter(|(key, _)| key.starts_with("cache.")));
        }
        let of_frontend = export.metadata.iter().filter(|(key, _)| key.starts_with("frontend."));
        response.extend(of_frontend.map(|(k, v)| (k.clone(), String::from_utf8_lossy(v).into_owned())));
        Ok(Exported { response, results })
    }
}

/// Gives the cache to one place; tells first whether that is with the client.
fn given<'a>(
    place: &'a CacheExport,
    known: &'a [&'a [Known<ResultRef>]],
    job: &'a JobContext,
    id: String,
) -> BoxFuture<'a, Result<Told, GatewayError>> {
    Box::pin(async move {
        let told = place.export(known, job, &id).await.map_err(cache_error)?;
        Ok((place.is_with_client(), told))
    })
}

async fn trails(result: &FrontendResult) -> Trails {
    let mut trails = Vec::new();
    match &result.refs {
        Refs::One(handle) => {
            if let Some(handle) = handle {
                trails.push((String::new(), handle.trail().await));
            }
        }
        Refs::ByPlatform(handles) => {
            for (platform, handle) in handles {
                if let Some(handle) = handle {
                    trails.push((platform.clone(), handle.trail().await));
                }
            }
        }
    }
    trails
}

async fn inline_caches(
    trails: &Trails,
    form: crosskit_snapshots::LayerForm,
    job: &JobContext,
) -> Result<BTreeMap<String, Vec<u8>>, GatewayError> {
    let mut made = BTreeMap::new();
    for (platform, trail) in trails {
        let cache = crosskit_remotecache::inline(trail, form, job.sessions()).await.map_err(cache_error)?;
        made.extend(cache.map(|cache| (platform.clone(), cache)));
    }
    Ok(made)
}

/// What the exporters of a build said and made.
pub struct Exported {
    /// What the client is told.
    pub response: BTreeMap<String, String>,
    /// Images, by the exporter's place.
    pub results: BTreeMap<i64, api::Descriptor>,
}

/// The key under which an exporter tells what it made.
const DESCRIPTOR: &str = "containerimage.descriptor";

/// A descriptor from its JSON in base64.
fn descriptor(text: &str) -> Option<api::Descriptor> {
    use base64::Engine as _;
    let json = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let desc: crosskit_images::Descriptor = serde_json::from_slice(&json).ok()?;
    Some(api::Descriptor {
        media_type: desc.media_type,
        digest: desc.digest.to_string(),
        size: i64::try_from(desc.size).unwrap_or(i64::MAX),
        annotations: desc.annotations,
    })
}

/// Passes what an exporter reports on to its step's progress.
struct Reports(VertexProgress);

impl Report for Reports {
    fn status(&self, id: &str, action: &str, current: u64, total: u64, started: SystemTime, done: bool) {
        let amount = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        self.0.status(StatusUpdate {
            id: id.to_string(),
            action: action.to_string(),
            current: amount(current),
            total: amount(total),
            started: Some(started),
            completed: done.then(SystemTime::now),
        });
    }
}

/// An error of an exporter as the client sees it.
pub fn export_error(error: ExportError) -> GatewayError {
    use crosskit_exporters::ErrorKind;
    let code = match error.kind() {
        ErrorKind::Canceled => Code::Cancelled,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::User | ErrorKind::Environment | ErrorKind::Internal => Code::Unknown,
    };
    GatewayError::new(code, error.to_string())
}

/// An error of a cache elsewhere as the client sees it.
pub fn cache_error(error: RemoteCacheError) -> GatewayError {
    use crosskit_remotecache::ErrorKind;
    let code = match error.kind() {
        ErrorKind::Canceled => Code::Cancelled,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::User | ErrorKind::Environment | ErrorKind::Internal => Code::Unknown,
    };
    GatewayError::new(code, error.to_string())
}

/// Caches as a client asks for them.
pub fn cache_options(entries: Vec<api::CacheOptionsEntry>) -> Vec<CacheOptions> {
    entries.into_iter().map(|entry| CacheOptions { kind: entry.r#type, attrs: entry.attrs }).collect()
}
