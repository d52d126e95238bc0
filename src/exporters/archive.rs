//! `oci` and `docker`: an image as an archive at the client, or as blobs in its content store.

use crate::blobs::{self, Committed, fetch, image_error};
use crate::image::{told, with_metadata};
use crate::manifest::rfc3339;
use crate::options::ImageOptions;
use crate::{Export, ExportError, Exporter, Exporters, Part, Report, blocking, session_error, stream};
use bytes::Bytes;
use crosskit_images::archives::{ArchiveFormat, write_archive};
use crosskit_images::registry::Reference;
use crosskit_images::{ContentStore, Descriptor, Digester, Index, Manifest, media_types};
use crosskit_session::{Session, SessionContent};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// The annotation that says when an archive was made.
const CREATED: &str = "org.opencontainers.image.created";

/// The content store of a client that takes results.
const EXPORT_STORE: &str = "export";

/// Bytes of a manifest at most; registries refuse more than 4 MiB.
const MAX_MANIFEST_SIZE: u64 = 8 << 20;

/// Blobs that are sent at the same time.
const AT_ONCE: usize = 8;

/// Bytes of a blob that are sent at once.
const PIECE: usize = 1 << 20;

struct Archive {
    exporters: Exporters,
    at: usize,
    options: ImageOptions,
    form: ArchiveFormat,
}

/// `type=oci`.
pub fn resolve_oci(
    exporters: &Exporters,
    at: usize,
    attrs: &BTreeMap<String, String>,
) -> Result<Box<dyn Exporter>, ExportError> {
    let options = ImageOptions::parse("oci", attrs)?;
    Ok(Box::new(Archive { exporters: exporters.clone(), at, options, form: ArchiveFormat::Oci }))
}

/// `type=docker`.
pub fn resolve_docker(
    exporters: &Exporters,
    at: usize,
    attrs: &BTreeMap<String, String>,
) -> Result<Box<dyn Exporter>, ExportError> {
    let options = ImageOptions::parse("docker", attrs)?;
    Ok(Box::new(Archive { exporters: exporters.clone(), at, options, form: ArchiveFormat::Docker }))
}

impl Exporter for Archive {
    fn streams(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        match self.form {
            ArchiveFormat::Oci => "exporting to oci image format".to_string(),
            ArchiveFormat::Docker => "exporting to docker image format".to_string(),
        }
    }

    fn image_layers(&self) -> Option<crosskit_snapshots::LayerForm> {
        Some(crate::blobs::form(&self.options, None))
    }

    fn export<'a>(
        &'a self,
        result: &'a Export,
        report: Arc<dyn Report>,
        session: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, ExportError>> {
        Box::pin(async move {
            if self.form == ArchiveFormat::Docker && result.is_map {
                return Err(ExportError::user(
                    "docker exporter does not currently support exporting manifest lists",
                ));
            }
            let exporter = match self.form {
                ArchiveFormat::Oci => "oci",
                ArchiveFormat::Docker => "docker",
            };
            crate::tell(&report, &self.options.remarks);
            let result = with_metadata(result, &self.options);
            let names = self.names(&result)?;
            let session = self.exporters.session(session).await?;
            let options = self.options.settled(exporter, &result)?;
            let mut committed = blobs::commit(&self.exporters.images, &result, &options, &report).await?;
            let epoch = self.options.epoch.or(result.common_epoch()?);
            let created = rfc3339(epoch.unwrap_or_else(|| seconds(SystemTime::now())));
            committed.root.annotations.entry(CREATED.to_string()).or_insert(created);
            let mut response = told(&committed)?;
            if !names.is_empty() {
                let joined: Vec<String> = names.iter().map(ToString::to_string).collect();
                response.insert("image.name".to_string(), joined.join(","));
            }
            fetch(&committed).await?;
            if self.options.tar {
                self.send_tar(&session, &committed, names, &response, &report).await?;
            } else {
                self.send_blobs(&session, &committed).await?;
            }
            Ok(response)
        })
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

impl Archive {
    fn names(&self, result: &Export) -> Result<Vec<Reference>, ExportError> {
        let mut name = self.options.name.clone();
        if name == "*"
            && let Some(of_result) = result.metadata.get("image.name")
        {
            name = String::from_utf8_lossy(of_result).into_owned();
        }
        name.split(',')
            .filter(|n| !n.is_empty())
            .map(|n| {
                Reference::parse(n)
                    .map(Reference::with_default_tag)
                    .map_err(|e| ExportError::user(format!("failed to parse {n}: {e}")))
            })
            .collect()
    }

    async fn send_tar(
        &self,
        session: &Session,
        committed: &Committed,
        names: Vec<Reference>,
        response: &BTreeMap<String, String>,
        report: &Arc<dyn Report>,
    ) -> Result<(), ExportError> {
        let part = Part::begin(report, "sending tarball");
        let file = session.send_file(self.at, response).await.map_err(session_error)?;
        let (content, root, form) =
            (self.exporters.images.content.clone(), committed.root.clone(), self.form);
        let sent = stream::send(file, move |out| {
            write_archive(&content, &root, &names, form, out).map(drop).map_err(image_error)
        });
        match sent.await {
            // A client that has the image already says so, and needs no more of it.
            Err(e) if e.is_already_there() => {}
            sent => sent?,
        }
        part.end();
        Ok(())
    }

    /// Blobs before those that name them, so that what is there is always complete.
    async fn send_blobs(&self, session: &Session, committed: &Committed) -> Result<(), ExportError> {
        let store = session.content(EXPORT_STORE).map_err(session_error)?;
        let (content, root) = (self.exporters.images.content.clone(), committed.root.clone());
        let blobs = blocking(move || {
            let mut blobs = Vec::new();
            blobs_of(&content, &root, &mut blobs)?;
            Ok(blobs)
        })
        .await?;
        let names_others = |blob: &&Descriptor| {
            media_types::is_manifest(&blob.media_type) || media_types::is_index(&blob.media_type)
        };
        // On a line that is long, questions whether a blob is there take longer than the answers.
        futures::stream::iter(blobs.iter().filter(|blob| !names_others(blob)).map(Ok))
            .try_for_each_concurrent(AT_ONCE, |blob| self.send_blob(&store, blob))
            .await?;
        for blob in blobs.iter().filter(names_others) {
            self.send_blob(&store, blob).await?;
        }
        Ok(())
    }

    async fn send_blob(
        &self,
        store: &SessionContent,
        blob: &crosskit_images::Descriptor,
    ) -> Result<(), ExportError> {
        let digest = blob.digest.to_string();
        let Some(mut out) = store.write(&digest, blob.size).await.map_err(session_error)? else {
            return Ok(());
        };
        let reader = Arc::new(self.exporters.images.content.reader(&blob.digest).map_err(image_error)?);
        let (mut offset, mut hasher) = (0, Digester::new());
        while offset < blob.size {
            let reader = Arc::clone(&reader);
            let (piece, hashed) = blocking(move || {
                let mut piece = vec![0; PIECE];
                let read = reader.read_at(&mut piece, offset).map_err(|e| {
                    ExportError::new(crate::ErrorKind::Environment, format!("reading a blob: {e}"))
                })?;
                piece.truncate(read);
                hasher.update(&piece);
                Ok((piece, hasher))
            })
            .await?;
            hasher = hashed;
            if piece.is_empty() {
                return Err(ExportError::internal(format!("blob {digest} is shorter than its size")));
            }
            offset += piece.len() as u64;
            out.write(Bytes::from(piece)).await.map_err(session_error)?;
        }
        self.exporters.images.content.check(&blob.digest, &hasher.finish()).map_err(image_error)?;
        out.commit().await.map_err(session_error)
    }
}

/// The blobs of an image, those that name others last.
fn blobs_of(
    content: &ContentStore,
    desc: &Descriptor,
    into: &mut Vec<Descriptor>,
) -> Result<(), ExportError> {
    if media_types::is_index(&desc.media_type) {
        let bytes = content.read(&desc.digest, MAX_MANIFEST_SIZE).map_err(image_error)?;
        for manifest in Index::parse(&bytes).map_err(image_error)?.manifests {
            blobs_of(content, &manifest, into)?;
        }
    } else if media_types::is_manifest(&desc.media_type) {
        let bytes = content.read(&desc.digest, MAX_MANIFEST_SIZE).map_err(image_error)?;
        let manifest = Manifest::parse(&bytes).map_err(image_error)?;
        into.push(manifest.config);
        into.extend(manifest.layers);
    }
    into.push(desc.clone());
    Ok(())
}
