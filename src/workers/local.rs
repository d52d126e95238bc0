//! The worker on this machine: what its operations need.

use crate::Origins;
use crosskit_exec::Executor;
use crosskit_exec::devices::{Devices, Registry};
use crosskit_platforms::Platform;
use crosskit_session::SessionManager;
use crosskit_snapshots::Snapshots;
use crosskit_solver::{ErrorKind, OpError};
use crosskit_sources::Sources;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What operations on this machine need.
pub struct LocalParts {
    /// Layers on disk.
    pub snapshots: Snapshots,
    /// What runs processes.
    pub executor: Executor,
    /// The clients.
    pub sessions: SessionManager,
    /// Where inputs come from.
    pub sources: Sources,
    /// Where the inputs of builds came from.
    pub origins: Origins,
    /// A folder in memory, for secrets and sockets of steps.
    pub volatile: PathBuf,
    /// Places for steps that run at the same time; None for no limit.
    pub places: Option<Arc<Semaphore>>,
    /// Devices that steps can be given.
    pub devices: Devices,
}

/// A place among the steps that run at the same time.
pub struct Place(#[allow(dead_code)] Option<OwnedSemaphorePermit>);

impl LocalParts {
    /// The devices of this machine, as they are now.
    pub(crate) async fn devices(&self) -> Result<Registry, OpError> {
        let devices = self.devices.clone();
        match tokio::task::spawn_blocking(move || devices.read()).await {
            Ok(read) => read.map_err(|e| OpError::from_error(ErrorKind::Environment, e)),
            Err(_) => Err(OpError::canceled()),
        }
    }

    /// Waits for a place for a step of a platform.
    pub async fn place_for(&self, _platform: &Platform) -> Place {
        match &self.places {
            None => Place(None),
            // The semaphore is never closed.
            Some(places) => Place(Arc::clone(places).acquire_owned().await.ok()),
        }
    }
}
