//! What the machine does while a build runs, for the provenance that tells it.

use crosskit_attest::Measured;
use crosskit_exec::usage::{MachineSample, Rhythm, machine};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// Samples of a build at most, without the last (BuildKit executor/resources).
const MOST: usize = 20;

type Taken = Arc<Mutex<Rhythm<MachineSample>>>;

/// Looks at the machine now and then, until it is dropped.
pub struct MachineWatch {
    taken: Taken,
    task: AbortHandle,
}

impl MachineWatch {
    /// Begins. Nothing is looked at in the first two seconds.
    pub fn start() -> Self {
        let taken: Taken = Arc::new(Mutex::new(Rhythm::new(MOST)));
        let looking = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            loop {
                let pause = looking.lock().unwrap_or_else(PoisonError::into_inner).pause();
                tokio::time::sleep(pause).await;
                if let Ok(Some(sample)) = tokio::task::spawn_blocking(machine).await {
                    looking.lock().unwrap_or_else(PoisonError::into_inner).add(sample);
                }
            }
        });
        MachineWatch { taken, task: task.abort_handle() }
    }

    /// What was seen, and what the machine does when that is asked.
    pub fn measured(&self) -> Measured {
        let taken = Arc::clone(&self.taken);
        Measured::new(move || {
            let mut samples = taken.lock().unwrap_or_else(PoisonError::into_inner).samples().to_vec();
            samples.extend(machine());
            serde_json::to_value(samples).unwrap_or_default()
        })
    }
}

impl Drop for MachineWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
