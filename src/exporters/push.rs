//! Pushing an image to a registry.

use crate::blobs::{Committed, image_error};
use crate::options::ImageOptions;
use crate::{ExportError, Exporters, Part, Report, snapshot_error};
use crosskit_images::Digest;
use crosskit_images::annotations::DISTRIBUTION_SOURCE;
use crosskit_images::registry::{BlobState, Client, Progress, PushOptions, Reference};
use crosskit_session::SessionCredentials;
use crosskit_snapshots::Layer;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Layers that are asked about or got at once.
const AT_ONCE: usize = 4;

/// Passes what a transfer tells on to the step, a line for each blob.
struct Blobs {
    report: Arc<dyn Report>,
    started: Mutex<HashMap<Digest, SystemTime>>,
}

impl Progress for Blobs {
    fn blob(&self, digest: &Digest, state: BlobState, current: u64, total: u64) {
        let started = *self
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(*digest)
            .or_insert_with(SystemTime::now);
        let (action, done) = match state {
            BlobState::Transferring => ("pushing", false),
            BlobState::Exists | BlobState::Mounted | BlobState::Done => ("pushing", true),
        };
        self.report.status(&digest.to_string(), action, current, total, started, done);
    }
}

/// Gets a layer that is elsewhere, unless the registry has it or takes it from where it is.
fn bring<'a>(
    client: &'a Client,
    reference: &'a Reference,
    layer: &'a Layer,
    sources: &'a HashMap<Digest, Vec<Reference>>,
) -> BoxFuture<'a, Result<(), ExportError>> {
    Box::pin(async move {
        let desc = &layer.blob.desc;
        let known = sources.get(&desc.digest).map_or(&[][..], Vec::as_slice);
        if client.offer_blob(reference, desc, known).await.map_err(image_error)? {
            return Ok(());
        }
        layer.fetch().await.map_err(snapshot_error)
    })
}

/// Pushes a committed image under a name.
///
/// # Errors
/// A name that is none, a registry that refuses or can't be reached.
pub async fn push(
    exporters: &Exporters,
    committed: &Committed,
    name: &str,
    options: &ImageOptions,
    session: &str,
    report: &Arc<dyn Report>,
) -> Result<(), ExportError> {
    let reference =
        Reference::parse(name).map_err(|e| ExportError::user(format!("{name:?} is no image name: {e}")))?;
    let hosts = match options.insecure {
        true => exporters.images.registries.with_insecure(reference.domain()),
        false => exporters.images.registries.clone(),
    };
    let credentials = SessionCredentials::new(exporters.sessions.clone(), vec![session.to_string()]);
    let client = Client::new(hosts, Arc::new(credentials));
    let mut sources: HashMap<Digest, Vec<Reference>> = HashMap::new();
    for layer in &committed.layers {
        let known = layer.blob.desc.annotations.iter().filter_map(|(key, repositories)| {
            let registry = key.strip_prefix(DISTRIBUTION_SOURCE)?;
            let repositories = repositories.split(',').map(move |r| format!("{registry}/{r}"));
            Some(repositories.filter_map(|r| Reference::parse(&r).ok()))
        });
        sources.entry(layer.blob.desc.digest).or_default().extend(known.flatten());
    }
    let part = Part::begin(report, "pushing layers");
    let mut missing = Vec::new();
    for layer in &committed.layers {
        if !exporters.images.content.holds(&layer.blob.desc) {
            missing.push(bring(&client, &reference, layer, &sources));
        }
    }
    futures::stream::iter(missing).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let progress = Arc::new(Blobs { report: Arc::clone(report), started: Mutex::default() });
    let push_options = PushOptions { by_digest: options.push_by_digest, sources };
    client
        .push(&exporters.images.content, &committed.root, &reference, &push_options, progress)
        .await
        .map_err(image_error)?;
    part.end();
    Part::begin(
        report,
        format!("pushing manifest for {}@{}", reference.clone().with_default_tag(), committed.root.digest),
    )
    .end();
    Ok(())
}
