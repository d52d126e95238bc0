//! Cache mounts of steps, which go with a cache where that is wanted.
//!
//! What one holds is a layer behind a key of its own, whose record tells the mount's id. No step has that key, so
//! that whoever does not know of it passes over it.

use crate::chains::Chains;
use crate::error::{RemoteCacheError, Result};
use crate::options::Mounts;
use crate::{RemoteCaches, ResultRef};
use crosskit_api::pb;
use crosskit_cache::{Cache, KeyDigest, LoadContext};
use crosskit_llb::Vertex;
use crosskit_snapshots::{LayerForm, Snapshots};
use crosskit_solver::VertexProgress;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// The key of what a cache mount holds.
pub(crate) fn key(id: &str) -> KeyDigest {
    KeyDigest::of(format!("crosskit cache mount\0{id}").as_bytes())
}

/// The ids of the cache mounts that steps have. Those that start with files are known by these, too, which
/// another machine does not have: they stay here.
fn ids<'a>(steps: impl Iterator<Item = &'a Vertex>) -> BTreeSet<&'a str> {
    let runs = steps.filter_map(|vertex| match &vertex.op.op {
        Some(pb::op::Op::Exec(exec)) => Some(&exec.mounts),
        _ => None,
    });
    let caches =
        runs.flatten().filter(|mount| mount.mount_type() == pb::MountType::Cache && mount.input == -1);
    caches.filter_map(|mount| mount.cache_opt.as_ref()).map(|cache| cache.id.as_str()).collect()
}

/// Adds the cache mounts of steps to what is given away.
pub(crate) async fn give(
    chains: &mut Chains,
    steps: &[&Vertex],
    wanted: &Mounts,
    form: LayerForm,
    snapshots: &Snapshots,
    step: &VertexProgress,
) -> Result<()> {
    for id in ids(steps.iter().copied()) {
        if !wanted.has(id) {
            continue;
        }
        let done = step.part(format!("copying cache mount {id}"));
        let failed = || RemoteCacheError::snapshots(format!("copy cache mount {id}"));
        let layers = match snapshots.copy_cache_mount(id).await.map_err(failed())? {
            Some(copy) => copy.layers(form).await.map_err(failed())?,
            None => Vec::new(),
        };
        drop(done);
        if layers.is_empty() {
            tracing::warn!(
                "cache mount {id} is not exported: there is nothing in it, or a step has it alone"
            );
            continue;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        chains.add_mount(id, layers, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(())
}

impl RemoteCaches {
    /// Fills cache mounts that are not there with what a cache has of them.
    pub(crate) async fn fill_mounts(
        &self,
        known: &BTreeSet<String>,
        wanted: &Mounts,
        cache: &Cache<ResultRef>,
        sessions: &[String],
        step: &VertexProgress,
    ) {
        let cx = LoadContext { sessions: sessions.to_vec(), ..LoadContext::default() };
        for id in known.iter().filter(|id| wanted.has(id)) {
            let Some(record) = cache.root(key(id)).and_then(|key| cache.newest(key)) else { continue };
            let done = step.part(format!("filling cache mount {id}"));
            let filled = async {
                let Some(found) = cache.load(&record, &cx).await.map_err(|e| e.to_string())? else {
                    return Ok(false);
                };
                self.snapshots.fill_cache_mount(id, &found).await.map_err(|e| e.to_string())
            };
            match filled.await {
                Ok(true) => tracing::debug!("cache mount {id} has been filled"),
                Ok(false) => tracing::debug!("cache mount {id} has files already"),
                // The steps do without it.
                Err(why) => tracing::warn!("cache mount {id} is not filled: {why}"),
            }
            drop(done);
        }
    }
}
