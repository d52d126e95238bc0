//! Knowing an input by the files in it that count.

use super::left::LeftOver;
use super::snapshot_error;
use crate::ResultRef;
use crate::keys::Selector;
use crosskit_cache::KeyDigest;
use crosskit_snapshots::checksum::{ContentQuery, content_digest};
use crosskit_solver::{ContentKey, OpContext, OpError};
use futures::future::BoxFuture;
use std::sync::Arc;

/// The digest of the files that some selectors choose.
pub struct FilesOf {
    /// Empty for all files.
    pub selectors: Vec<Selector>,
}

impl ContentKey<ResultRef> for FilesOf {
    fn digest<'a>(
        &'a self,
        _cx: &'a OpContext,
        input: &'a ResultRef,
    ) -> BoxFuture<'a, Result<Option<KeyDigest>, OpError>> {
        Box::pin(async move {
            let all = [Selector::default()];
            let selectors = if self.selectors.is_empty() { &all[..] } else { &self.selectors[..] };
            let digests = selectors.iter().map(|selector| async move {
                let options = ContentQuery {
                    wildcard: selector.wildcard,
                    follow_links: selector.follow_links,
                    include_patterns: selector.include.clone(),
                    exclude_patterns: selector.exclude.clone(),
                    required_paths: selector.required.clone(),
                };
                let path = crosskit_llb::paths::clean(&format!("/{}", selector.path));
                content_digest(input.as_ref(), &path, &options).await.map_err(|e| {
                    let id = input.as_ref().map_or("", |i| i.id());
                    snapshot_error(e).context(format!("failed to calculate checksum of ref {id}"))
                })
            });
            let left = || LeftOver { inputs: vec![input.clone()], mounts: Vec::new() };
            let digests = futures::future::try_join_all(digests).await;
            let digests = digests.map_err(|error| error.attach(Arc::new(left())))?;
            let joined = digests.iter().map(ToString::to_string).collect::<Vec<_>>().join("\0");
            Ok(Some(KeyDigest::of(joined.as_bytes())))
        })
    }
}
