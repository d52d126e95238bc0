//! Our session at a worker: one for each build, open as long as the build lives.

use super::connection::Line;
use super::folders::Folders;
use super::inputs::InputImage;
use super::lent::Lent;
use super::made::MadeOutput;
use super::proxies::Clients;
use super::{RemoteError, RemoteWorker};
use crate::LocalParts;
use crate::ops::snapshot_error;
use crosskit_platforms::Platform;
use crosskit_session::SessionServer;
use crosskit_snapshots::Ref;
use crosskit_solver::{JobContext, OpContext};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The name under which a build keeps its sessions at workers.
const SESSIONS: &str = "remote-sessions";

/// The name of our sessions, for those who look at a worker.
const NAME: &str = "crosskit farm";

/// How many steps of a build may have run at a worker before their results are here.
const AHEAD: usize = 8;

/// The images of inputs, by snapshot and platform.
type Images = Mutex<HashMap<(String, String), Arc<OnceCell<Arc<InputImage>>>>>;

/// A session at a worker. It ends when the last handle is dropped.
pub(super) struct RemoteSession {
    pub(super) id: String,
    /// For builds and what is told of them.
    pub(super) line: Line,
    pub(super) lent: Lent,
    pub(super) clients: Clients,
    pub(super) folders: Folders,
    images: Images,
    /// What steps of this session have left at the worker, by the snapshots here.
    pub(super) left: Mutex<HashMap<String, MadeOutput>>,
    /// For steps that have run and whose results are on their way.
    pub(super) ahead: Arc<Semaphore>,
    /// Cancelled when the worker has closed it.
    over: CancellationToken,
    _serving: AbortOnDropHandle<()>,
}

/// The sessions of a build, by worker.
#[derive(Default)]
struct OfBuild(Mutex<HashMap<String, Slot>>);

type Slot = Arc<tokio::sync::Mutex<Option<Arc<RemoteSession>>>>;

impl RemoteWorker {
    /// The session for a step: that of the first build that wants it, opened if it isn't yet.
    pub(super) async fn session(
        &self,
        cx: &OpContext,
        parts: &LocalParts,
    ) -> Result<Arc<RemoteSession>, RemoteError> {
        let job = cx.jobs.jobs().into_iter().next().ok_or(RemoteError::Canceled)?;
        let make = async { Ok::<_, Infallible>(OfBuild::default()) };
        let Ok(all) = job.decide_once(SESSIONS, make).await;
        let slot = {
            let mut slots = all.0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(self.name().to_string()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|session| !session.is_over()) {
            return Ok(open.clone());
        }
        let opened = Arc::new(self.open(&job, parts).await?);
        *slot = Some(opened.clone());
        Ok(opened)
    }

    async fn open(&self, job: &JobContext, parts: &LocalParts) -> Result<RemoteSession, RemoteError> {
        // Layers go over a connection of their own, so that nothing else waits behind them.
        let (target, fault) = (&self.0.target, |why| self.fault(why));
        let (line, blobs) = tokio::try_join!(target.connect(), target.connect()).map_err(fault)?;
        let lent =
            Lent::new(parts.snapshots.content().clone(), self.0.counters.clone(), self.0.arrivals.clone());
        let clients = Clients::new(parts.sessions.clone(), job.sessions().to_vec());
        let folders = Folders::new(self.0.counters.clone());
        let server = SessionServer::new("")
            .with_name(NAME)
            .with_dirs(folders.dirs.clone())
            .with_content(lent.clone())
            .with_secrets(clients.clone())
            .with_ssh(clients.clone())
            .with_auth(clients.clone());
        let id = server.id().to_string();
        let over = CancellationToken::new();
        let (ended, worker) = (over.clone().drop_guard(), self.name().to_string());
        let mut calls = blobs.control();
        let serving = tokio::spawn(async move {
            let _ended = ended;
            let served = server.serve_over(move |request| async move { calls.session(request).await }).await;
            if let Err(error) = served {
                tracing::debug!(worker, %error, "session at a worker ended");
            }
        });
        let (images, left) = Default::default();
        Ok(RemoteSession {
            id,
            line,
            lent,
            clients,
            folders,
            images,
            left,
            ahead: Arc::new(Semaphore::new(AHEAD)),
            over,
            _serving: AbortOnDropHandle::new(serving),
        })
    }
}

impl RemoteSession {
    /// Whether the worker has closed it.
    fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Has later steps open another.
    pub(super) fn abandon(&self) {
        self.over.cancel();
    }

    /// Waits until the worker closes it.
    pub(super) async fn closed(&self) {
        self.over.cancelled().await;
    }

    /// Lends an input as an image.
    pub(super) async fn lend(
        &self,
        input: &Ref,
        platform: &Platform,
    ) -> Result<Arc<InputImage>, RemoteError> {
        let key = (input.id().to_string(), platform.format_all());
        let cell = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            images.entry(key).or_default().clone()
        };
        let make = || async {
            let image = InputImage::of(input, platform).await?;
            self.lent.lend(&image);
            Ok(Arc::new(image))
        };
        let image = cell.get_or_try_init(make).await.map_err(|e| RemoteError::Step(snapshot_error(e)))?;
        Ok(image.clone())
    }
}
