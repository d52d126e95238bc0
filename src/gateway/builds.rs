//! Builds whose frontend runs in the client: their calls arrive on the control connection and
//! name the build in their metadata.

use crate::GatewayError;
use crate::forwarder::Forwarder;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Code;

/// The metadata key that names the build of a call.
pub const BUILD_ID: &str = "buildkit-controlapi-buildid";

/// How long a call waits for its build to come up. The client starts both at the same time;
/// BuildKit waits as long.
const WAIT_FOR_BUILD: Duration = Duration::from_secs(3);

type Known = HashMap<String, Arc<Forwarder>>;

/// The builds that run now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Builds(Arc<Inner>);

struct Inner {
    known: Mutex<Known>,
    changed: watch::Sender<u64>,
}

impl Default for Inner {
    fn default() -> Self {
        Inner { known: Mutex::default(), changed: watch::channel(0).0 }
    }
}

/// A build that is known as long as this is kept.
pub struct Registered {
    builds: Builds,
    id: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.builds.known().remove(&self.id);
    }
}

impl Builds {
    /// Makes a build known to calls.
    pub fn register(&self, id: &str, forwarder: Arc<Forwarder>) -> Registered {
        self.known().insert(id.to_string(), forwarder);
        self.0.changed.send_modify(|n| *n += 1);
        Registered { builds: self.clone(), id: id.to_string() }
    }

    /// Finds the build of a call.
    ///
    /// # Errors
    /// A call that names none, and a build that doesn't come up in time.
    pub async fn find(
        &self,
        metadata: &tonic::metadata::MetadataMap,
    ) -> Result<Arc<Forwarder>, GatewayError> {
        let id = metadata
            .get(BUILD_ID)
            .and_then(|v| v.to_str().ok())
            .filter(|v| !v.is_empty())
            .ok_or_else(|| GatewayError::plain("no buildid found in context"))?;
        let mut changed = self.0.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = self.known().get(id).cloned() {
                    return Some(found);
                }
                changed.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(WAIT_FOR_BUILD, wait).await {
            Ok(Some(found)) => Ok(found),
            _ => Err(GatewayError::new(Code::NotFound, format!("no such job {id}"))),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
