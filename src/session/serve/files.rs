//! Sending folders.

use crate::transfer::{Batch, Folder, MapEntry, Progress, Select, Tree, send};
use crate::{SessionError, headers};
use crosskit_api::filesync::file_sync_server::FileSync;
use crosskit_api::fsutil::Packet;
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Batches of packets that may wait for the line.
const WAITING: usize = 8;

/// Told of which folder how many bytes were sent so far, and whether that is all.
pub type DirProgress = Arc<dyn Fn(&str, u64, bool) + Send + Sync>;

/// The folders that a client lends, by name. Clones share them: one that is added while a session
/// is open can be asked for from then on.
#[derive(Clone, Default)]
pub struct LocalDirs {
    dirs: Arc<Mutex<HashMap<String, LocalDir>>>,
    progress: Option<DirProgress>,
}

#[derive(Clone)]
struct LocalDir {
    path: PathBuf,
    map: Option<MapEntry>,
}

impl LocalDirs {
    /// Lends the folder `path` as `name`. Its files are sent as if root owned them: who owns them
    /// here means nothing in a build.
    pub fn add(&mut self, name: impl Into<String>, path: impl Into<PathBuf>) {
        let map: MapEntry = Arc::new(|stat| {
            (stat.uid, stat.gid) = (0, 0);
            true
        });
        self.add_mapped(name, path, Some(map));
    }

    /// Lends the folder `path` as `name`, with its entries changed by `map`.
    pub fn add_mapped(&mut self, name: impl Into<String>, path: impl Into<PathBuf>, map: Option<MapEntry>) {
        self.locked().insert(name.into(), LocalDir { path: path.into(), map });
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, LocalDir>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants to know how much of which folder was sent.
    pub fn on_progress(&mut self, progress: DirProgress) {
        self.progress = Some(progress);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }
}

pub(super) struct Service {
    dirs: LocalDirs,
}

impl Service {
    pub(super) fn new(dirs: LocalDirs) -> Self {
        Self { dirs }
    }

    fn tree(
        &self,
        metadata: &MetadataMap,
    ) -> Result<(String, impl FnOnce() -> Result<Folder, SessionError> + use<>), Status> {
        let name = headers::take(metadata, headers::DIR_NAME).into_iter().next().unwrap_or_default();
        let select = Select {
            include: headers::take(metadata, headers::INCLUDE_PATTERNS),
            exclude: headers::take(metadata, headers::EXCLUDE_PATTERNS),
            follow: headers::take(metadata, headers::FOLLOW_PATHS),
        };
        let Some(dir) = self.dirs.locked().get(&name).cloned() else {
            return Err(Status::not_found(format!("no access allowed to dir {name:?}")));
        };
        let open = move || {
            let folder = Folder::open(dir.path)?.select(&select)?;
            Ok(match dir.map {
                Some(map) => folder.map(map),
                None => folder,
            })
        };
        Ok((name, open))
    }
}

type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

#[tonic::async_trait]
impl FileSync for Service {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let (name, open) = self.tree(request.metadata())?;
        let folder =
            tokio::task::spawn_blocking(open).await.map_err(|err| Status::internal(err.to_string()))?;
        let tree: Arc<dyn Tree> = Arc::new(folder.map_err(|err| err.to_status())?);
        let progress = self.dirs.progress.clone().map(|progress| {
            let progress: Progress = Arc::new(move |bytes, done| progress(&name, bytes, done));
            progress
        });
        let packets = request.into_inner();
        let (out, batches) = mpsc::channel::<Batch>(WAITING);
        // Runs while its packets are taken, and is dropped with them.
        let sending = async move { send(tree, packets, out, progress).await };
        let end = tokio::spawn(sending);
        let guard = AbortOnDrop(end);
        let end = futures::stream::once(guard.failure()).filter_map(|failure| async { failure.map(Err) });
        let packets =
            ReceiverStream::new(batches).flat_map(|batch| futures::stream::iter(batch.into_iter().map(Ok)));
        Ok(Response::new(Box::pin(packets.chain(end))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("failed to negotiate protocol: only diffcopy is supported"))
    }
}

/// A task that ends when nobody waits for it any more.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<Result<(), SessionError>>);

impl AbortOnDrop {
    pub(super) async fn failure(mut self) -> Option<Status> {
        match (&mut self.0).await {
            Ok(Ok(())) => None,
            Ok(Err(err)) => Some(err.to_status()),
            Err(err) => Some(Status::internal(err.to_string())),
        }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
