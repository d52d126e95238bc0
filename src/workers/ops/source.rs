//! Bringing something from outside: an image, a client's folder, a repository, a file.

use crate::keys::source_digest;
use crate::{LocalParts, Origin, ResultRef};
use crosskit_api::pb;
use crosskit_cache::KeyDigest;
use crosskit_solver::progress::Stream;
use crosskit_solver::{CacheMap, ErrorKind, JobGroup, Op, OpContext, OpError, StatusUpdate, VertexProgress};
use crosskit_sources::{BuildMemory, Material, Source, SourceContext, SourceError, Status};
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::OnceCell;

/// The name under which a build keeps what its sources stood for when it first looked.
pub const MEMORY: &str = "source-memory";

/// The name under which a build keeps which daemon's older habits it wants: a `u32`, as in
/// [`SourceContext::compatibility_version`].
pub const COMPATIBILITY: &str = "compatibility-version";

/// Brings something from outside.
pub struct SourceOp {
    /// What is asked for.
    pub op: pb::SourceOp,
    /// For which platform, in normal form.
    pub platform: pb::Platform,
    /// Where it is brought to.
    pub parts: Arc<LocalParts>,
    /// The source, once it was looked up.
    pub source: OnceCell<Arc<dyn Source>>,
    /// What it stood for when somebody last looked.
    pub pin: Mutex<Option<String>>,
}

impl SourceOp {
    async fn source(&self) -> Result<&Arc<dyn Source>, OpError> {
        let look_up =
            || async { self.parts.sources.resolve(&self.op, Some(&self.platform)).map_err(source_error) };
        self.source.get_or_try_init(look_up).await
    }

    async fn key(&self, cx: &OpContext, index: usize) -> Result<Option<KeyDigest>, OpError> {
        let key = self.source().await?.key(&context(cx), index).await.map_err(source_error)?;
        if let Some(found) = key.as_ref().filter(|_| index == 0) {
            self.note_origin(cx, &found.pin);
            *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.pin.clone());
        }
        Ok(key.map(|key| source_digest(&key.key)))
    }

    /// What provenance says of it; nothing before somebody has looked what it stands for.
    pub fn material(&self) -> Option<Material> {
        let pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(self.source.get()?.material(&pin))
    }

    /// Notes where the input comes from, for workers elsewhere.
    fn note_origin(&self, cx: &OpContext, pin: &str) {
        let own = self.op.attrs.get("local.session").cloned();
        let client =
            own.into_iter().chain(cx.jobs.sessions()).find_map(|id| self.parts.sessions.get_now(&id));
        let key = client.as_ref().map_or("", |session| session.shared_key());
        if let Some(origin) = Origin::of(&self.op, pin, key) {
            self.parts.origins.note(cx.vertex.digest, origin);
        }
    }
}

impl Op<ResultRef> for SourceOp {
    fn cache_map<'a>(&'a self, cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        Box::pin(async move {
            let key = self.key(cx, 0).await?.ok_or_else(|| {
                OpError::new(ErrorKind::Internal, format!("source {} has no key", self.op.identifier))
            })?;
            let load_with = self.source().await?.load_with();
            Ok(CacheMap { load_with, ..CacheMap::new(key, 0) })
        })
    }

    fn further_key<'a>(
        &'a self,
        cx: &'a OpContext,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<KeyDigest>, OpError>> {
        // The first key, number 0, is the cache map's.
        Box::pin(self.key(cx, index + 1))
    }

    fn exec<'a>(
        &'a self,
        cx: &'a OpContext,
        _inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(async move {
            let found = self.source().await?.snapshot(&context(cx)).await.map_err(source_error)?;
            Ok(vec![found])
        })
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

/// What a source is told about the builds that want a vertex.
fn context(cx: &OpContext) -> Arc<dyn SourceContext> {
    reporting(cx.jobs.clone(), cx.progress.clone())
}

/// What a source is told about builds, reporting to a step.
pub fn reporting(jobs: JobGroup, progress: VertexProgress) -> Arc<dyn SourceContext> {
    Arc::new(Reporting { jobs, progress, started: Mutex::default() })
}

struct Reporting {
    jobs: JobGroup,
    progress: VertexProgress,
    /// By part: when it began.
    started: Mutex<HashMap<String, SystemTime>>,
}

impl SourceContext for Reporting {
    fn sessions(&self) -> Vec<String> {
        self.jobs.sessions()
    }

    fn status(&self, status: Status<'_>) {
        let started = {
            let mut all = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            *all.entry(status.id.to_string()).or_insert_with(SystemTime::now)
        };
        let amount = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        self.progress.status(StatusUpdate {
            id: status.id.to_string(),
            action: status.name.to_string(),
            current: amount(status.current),
            total: amount(status.total),
            started: Some(started),
            completed: status.done.then(SystemTime::now),
        });
    }

    fn memory(&self) -> Option<Arc<BuildMemory>> {
        self.jobs.value(MEMORY)
    }

    fn compatibility_version(&self) -> u32 {
        self.jobs.value::<u32>(COMPATIBILITY).map_or(0, |version| *version)
    }

    fn log(&self, stream: i32, text: &[u8]) {
        let stream = if stream == 1 { Stream::Stdout } else { Stream::Stderr };
        self.progress.log(stream, text);
    }
}

/// An error of a source as one of an operation.
pub fn source_error(error: SourceError) -> OpError {
    use crosskit_sources::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    OpError::from_error(kind, error)
}
