//! Waiting for a condition instead of for time.

use std::time::{Duration, Instant};

/// How often a condition that cannot wake us is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks at `condition` until it gives a value; panics, saying `what` was awaited, after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}
