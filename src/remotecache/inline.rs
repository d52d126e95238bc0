//! The cache that an image has with it.

use crate::ResultRef;
use crate::chains::time;
use crate::error::{RemoteCacheError, Result};
use crate::export::{Mode, collect};
use crosskit_cacheconfig::{CacheConfig, CacheResult, ChainedResult};
use crosskit_images::{Digest, gojson};
use crosskit_snapshots::LayerForm;
use crosskit_solver::Known;
use std::collections::HashMap;

/// What an image of a result tells of how it was made: keys, and which of the image's own layers
/// they lead to. `form` is how the image's layers are packed. None if there is nothing to tell.
///
/// # Errors
/// Layers that can't be made.
pub async fn inline(
    trail: &[Known<ResultRef>],
    form: LayerForm,
    sessions: &[String],
) -> Result<Option<Vec<u8>>> {
    let Some(Some(Some(result))) = trail.last().map(|last| &last.result) else { return Ok(None) };
    let layers = result.layers(form).await.map_err(RemoteCacheError::snapshots("make layers"))?;
    let chains = collect(&[trail], Mode::Min, form, sessions).await?;
    // The same layer, however it is packed.
    let places: HashMap<Digest, usize> =
        layers.iter().enumerate().rev().map(|(at, layer)| (layer.blob.diff_id, at)).collect();
    let mut matched = false;
    let records = chains.records(|made, record| {
        let at = made.layers.iter().map(|layer| places.get(&layer.blob.diff_id).copied());
        let Some(at) = at.collect::<Option<Vec<usize>>>() else { return };
        matched = true;
        let created = time(made.created_ns);
        let below = made.layers.iter().zip(&layers).all(|(a, b)| a.blob.diff_id == b.blob.diff_id);
        if below && made.layers.len() <= layers.len() {
            record.results.push(CacheResult { layer: at.len() as i64 - 1, created });
        } else {
            let layers = at.into_iter().map(|at| at as i64).collect();
            record.chains.push(ChainedResult { layers, created });
        }
    });
    if !matched {
        tracing::warn!("failed to match any cache with layers");
        return Ok(None);
    }
    let mut config = CacheConfig { layers: Vec::new(), records };
    config.sort();
    let bytes = gojson::to_vec(&config.records);
    bytes.map(Some).map_err(RemoteCacheError::images("write the cache of an image"))
}
