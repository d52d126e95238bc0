//! Removing folders in the background.

use crate::courtesy::Courtesy;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Removes folder trees on a thread of its own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Remover {
    jobs: Sender<PathBuf>,
    waiting: Arc<(Mutex<usize>, Condvar)>,
}

impl Remover {
    pub(crate) fn start(courtesy: Courtesy) -> crate::Result<Remover> {
        let (jobs, queue) = channel::<PathBuf>();
        let waiting: Arc<(Mutex<usize>, Condvar)> = Arc::default();
        let counter = waiting.clone();
        // Ends when the last handle is gone and the queue is empty.
        let work = move || {
            for path in queue {
                let mut stretch = courtesy.stretch();
                remove(&path);
                *counter.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
                counter.1.notify_all();
                stretch.may_rest();
            }
        };
        std::thread::Builder::new()
            .name("remover".into())
            .spawn(work)
            .map_err(|e| crate::Error::file("starting the thread that removes", "snapshots", e))?;
        Ok(Remover { jobs, waiting })
    }

    /// Removes `path` and all below it, some time soon.
    pub(crate) fn remove(&self, path: PathBuf) {
        *self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if let Err(lost) = self.jobs.send(path) {
            *self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
            remove(&lost.0);
        }
    }

    /// Waits until nothing is left to remove. Blocks.
    pub(crate) fn settle(&self) {
        let count = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.waiting.1.wait_while(count, |n| *n > 0));
    }
}

fn remove(path: &std::path::Path) {
    match std::fs::remove_dir_all(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %why, "a folder that is no longer needed could not be removed; the next start tries again");
        }
        _ => {}
    }
}
