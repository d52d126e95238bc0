//! Giving room back beside builds without being in their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long removals go on at a stretch while somebody builds.
const STRETCH: Duration = Duration::from_millis(2);

/// How many times as long they rest then: two threads that remove take a tenth of two cores.
const REST: u32 = 9;

/// The longest rest: one large tree that had to go as a whole is no reason to stop for long.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// Who builds at the moment.
#[derive(Clone, Default)]
pub(crate) struct Courtesy(Arc<AtomicUsize>);

/// As long as it is held, what removes goes slowly. See [`crate::Snapshots::building`].
pub struct Building(Courtesy);

impl Drop for Building {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Courtesy {
    pub(crate) fn building(&self) -> Building {
        self.0.fetch_add(1, Ordering::Relaxed);
        Building(self.clone())
    }

    /// Begins to remove.
    pub(crate) fn stretch(&self) -> Stretch<'_> {
        Stretch { courtesy: self, since: Instant::now() }
    }

    fn someone_builds(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A time in which something is removed.
pub(crate) struct Stretch<'a> {
    courtesy: &'a Courtesy,
    since: Instant,
}

impl Stretch<'_> {
    /// To be called wherever it can wait, without a lock: rests if it is time to. Blocks.
    pub(crate) fn may_rest(&mut self) {
        let worked = self.since.elapsed();
        if worked < STRETCH {
            return;
        }
        if self.courtesy.someone_builds() {
            std::thread::sleep((worked * REST).min(LONGEST_REST));
        }
        self.since = Instant::now();
    }
}
