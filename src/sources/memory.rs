//! What was found out for one build, so that all of it sees the same.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// What sources stand for in one build: a branch or a file on the web that changes while a build
/// runs stays what it was when the build first looked. Files are kept as long as this.
#[derive(Default)]
pub struct BuildMemory {
    slots: Mutex<HashMap<String, Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Vec<Arc<dyn Any + Send + Sync>>>>;

impl std::fmt::Debug for BuildMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BuildMemory")
    }
}

/// What is known of one thing. Who looks for it elsewhere holds this meanwhile, and others wait.
pub(crate) struct Known(OwnedMutexGuard<Vec<Arc<dyn Any + Send + Sync>>>);

impl BuildMemory {
    pub(crate) async fn lock(&self, key: &str) -> Known {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(key.to_string()).or_default().clone()
        };
        Known(slot.lock_owned().await)
    }
}

impl Known {
    pub(crate) fn values<T: Any + Send + Sync>(&self) -> impl Iterator<Item = Arc<T>> + '_ {
        self.0.iter().filter_map(|value| value.clone().downcast().ok())
    }

    pub(crate) fn add<T: Any + Send + Sync>(&mut self, value: T) {
        self.0.push(Arc::new(value));
    }
}
