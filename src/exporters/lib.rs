//! Where results go: image, archives, local, tar.
//!
//! One trait, one file for each kind, and a table that names them.

mod archive;
mod attestations;
mod blobs;
mod error;
mod files;
mod image;
mod manifest;
pub mod options;
mod push;
mod result;
mod stream;

pub use attestations::Attested;
pub use blobs::ImageParts;
pub use error::{ErrorKind, ExportError};
pub use result::{Export, NamedPlatform};

use crosskit_session::{Session, SessionManager, WAIT_FOR_SESSION};
use crosskit_snapshots::LayerForm;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// Where an exporter tells how far it is.
pub trait Report: Send + Sync {
    /// A part of the export: `id` names it, `action` says what is done, amounts are bytes.
    fn status(&self, id: &str, action: &str, current: u64, total: u64, started: SystemTime, done: bool);
}

/// One place that a result goes to.
pub trait Exporter: Send + Sync {
    /// The step's name in the progress.
    fn name(&self) -> String;

    /// How the layers of the images that it makes are packed; none where it makes no images.
    fn image_layers(&self) -> Option<LayerForm> {
        None
    }

    /// Whether the client gets it while it is made, so that it can't be begun anew.
    fn streams(&self) -> bool {
        false
    }

    /// Exports, and returns what the client is told, such as `containerimage.digest`. A result
    /// appears whole or not at all. Dropping the future cancels it.
    fn export<'a>(
        &'a self,
        result: &'a Export,
        report: Arc<dyn Report>,
        session: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, ExportError>>;
}

/// What exporters need of the daemon.
#[derive(Clone)]
pub struct Exporters {
    /// The clients.
    pub sessions: SessionManager,
    /// Images, registries.
    pub images: ImageParts,
}

type Resolve = fn(&Exporters, usize, &BTreeMap<String, String>) -> Result<Box<dyn Exporter>, ExportError>;

/// The kinds of exporters.
const KINDS: &[(&str, Resolve)] = &[
    ("image", image::resolve),
    ("oci", archive::resolve_oci),
    ("docker", archive::resolve_docker),
    ("local", files::resolve_local),
    ("tar", files::resolve_tar),
];

impl Exporters {
    /// The exporter of a type with these keys; `at` is its place among the build's outputs.
    ///
    /// # Errors
    /// A type or a key that nobody knows, and values that make no sense.
    pub fn resolve(
        &self,
        kind: &str,
        at: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Box<dyn Exporter>, ExportError> {
        match KINDS.iter().find(|(name, _)| *name == kind) {
            Some((_, resolve)) => resolve(self, at, attrs),
            None => {
                let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
                Err(ExportError::user(format!(
                    "exporter {kind:?} could not be found: use one of {}",
                    known.join(", ")
                )))
            }
        }
    }

    async fn session(&self, id: &str) -> Result<Session, ExportError> {
        self.sessions.get(id, WAIT_FOR_SESSION).await.map_err(session_error)
    }
}

fn session_error(error: crosskit_session::SessionError) -> ExportError {
    use crosskit_session::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    let found = ExportError::new(kind, error.to_string());
    if error.code() == Some(tonic::Code::AlreadyExists) { found.already_there() } else { found }
}

fn snapshot_error(error: crosskit_snapshots::Error) -> ExportError {
    use crosskit_snapshots::Kind;
    let kind = match error.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    ExportError::new(kind, error.to_string())
}

/// A part of an export that is told when it begins and when it ends.
struct Part {
    report: Arc<dyn Report>,
    id: String,
    started: SystemTime,
}

impl Part {
    fn begin(report: &Arc<dyn Report>, id: impl Into<String>) -> Part {
        let part = Part { report: Arc::clone(report), id: id.into(), started: SystemTime::now() };
        part.report.status(&part.id, "", 0, 0, part.started, false);
        part
    }

    fn end(self) {}
}

impl Drop for Part {
    /// A part that fails is over as well.
    fn drop(&mut self) {
        self.report.status(&self.id, "", 0, 0, self.started, true);
    }
}

/// Tells of what was asked for to no effect.
fn tell(report: &Arc<dyn Report>, remarks: &[String]) {
    for remark in remarks {
        Part::begin(report, remark).end();
    }
}

/// What runs on threads that may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(ExportError::new(ErrorKind::Canceled, "context canceled")))
}
