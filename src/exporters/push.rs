//! Pushing an image to a registry.

use crate::blobs::{Committed, fetch, image_error};
use crate::options::ImageOptions;
use crate::{ExportError, Exporters, Part, Report};
use crosskit_images::Digest;
use crosskit_images::registry::{BlobState, Client, Progress, PushOptions, Reference};
use crosskit_session::SessionCredentials;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

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
            let registry = key.strip_prefix("containerd.io/distribution.source.")?;
            let repositories = repositories.split(',').map(move |r| format!("{registry}/{r}"));
            Some(repositories.filter_map(|r| Reference::parse(&r).ok()))
        });
        sources.entry(layer.blob.desc.digest).or_default().extend(known.flatten());
    }
    let part = Part::begin(report, "pushing layers");
    fetch(committed).await?;
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
