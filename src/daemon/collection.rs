//! Collecting what nobody has used for long, and what is too much, as the policies say; and memory.

use crate::builds::Builder;
use crosskit_api::types::GcPolicy;
use crosskit_snapshots::PruneOptions;
use crosskit_snapshots::filters::Filters;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Collections are at least this far apart, however many builds end.
const PACE: Duration = Duration::from_secs(60);

/// How long after a build it begins, so that the next build of a batch isn't in its way.
const AFTER_BUILD: Duration = Duration::from_secs(1);

/// Collects after builds until it is stopped. `ended` is told when a build has ended.
pub async fn run(builder: Arc<Builder>, ended: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = ended.notified() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AFTER_BUILD) => {}
        }
        forget(&builder).await;
        match requests(&builder.gc) {
            Ok(requests) => match builder.prune(requests).await {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => {
                    let bytes: u64 = removed.iter().map(|r| r.size).sum();
                    tracing::debug!("collected {} records, {bytes} bytes", removed.len());
                }
                Err(e) => tracing::error!("collecting old records: {}", e.message()),
            },
            Err(e) => tracing::error!("collecting old records: {e}"),
        }
        let _ = tokio::task::spawn_blocking(give_memory_back).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
    }
}

/// Forgets builds that ended long ago.
async fn forget(builder: &Builder) {
    let history = builder.history.clone();
    match tokio::task::spawn_blocking(move || history.expire(SystemTime::now())).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::error!("forgetting old builds: {e}"),
        Err(e) => tracing::error!("forgetting old builds: {e}"),
    }
}

/// Gives the memory that large graphs have taken back to the system: the allocator keeps it for
/// the next build, which may not come.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only returns pages that the allocator has free, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The policies as requests, in their order.
pub fn requests(policies: &[GcPolicy]) -> Result<Vec<PruneOptions>, String> {
    let amount = |v: i64| u64::try_from(v).unwrap_or(0);
    policies
        .iter()
        .map(|p| {
            Ok(PruneOptions {
                filters: Filters::parse(&p.filters).map_err(|e| e.to_string())?,
                all: p.all,
                keep_duration: Duration::from_nanos(amount(p.keep_duration)),
                reserved_space: amount(p.reserved_space),
                max_used_space: amount(p.max_used_space),
                min_free_space: amount(p.min_free_space),
            })
        })
        .collect()
}
