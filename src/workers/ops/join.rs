//! Merging and comparing results; no file is touched.

use super::snapshot_error;
use crate::ResultRef;
use crate::keys::{diff_digest, merge_digest};
use crosskit_api::pb;
use crosskit_snapshots::{About, Snapshots};
use crosskit_solver::{CacheMap, ErrorKind, Op, OpContext, OpError};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Lays results over one another.
pub struct MergeOp {
    /// What is asked for.
    pub op: pb::MergeOp,
    /// Layers on disk.
    pub snapshots: Snapshots,
}

impl Op<ResultRef> for MergeOp {
    fn cache_map<'a>(&'a self, _cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        let map = CacheMap::new(merge_digest(&self.op), self.op.inputs.len());
        Box::pin(std::future::ready(Ok(map)))
    }

    fn exec<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(async move {
            let parents: Vec<_> = inputs.into_iter().flatten().collect();
            let about = About::new(cx.progress.name());
            let merged = self.snapshots.merge(&parents, about).map_err(snapshot_error)?;
            Ok(vec![merged])
        })
    }
}

/// What one result has over another.
pub struct DiffOp {
    /// What is asked for.
    pub op: pb::DiffOp,
    /// Layers on disk.
    pub snapshots: Snapshots,
}

impl DiffOp {
    /// Whether lower and upper are there, rather than empty.
    fn given(&self) -> (bool, bool) {
        let lower = self.op.lower.as_ref().is_some_and(|l| l.input != -1);
        let upper = self.op.upper.as_ref().is_some_and(|u| u.input != -1);
        (lower, upper)
    }
}

impl Op<ResultRef> for DiffOp {
    fn cache_map<'a>(&'a self, _cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        let (lower, upper) = self.given();
        let map = CacheMap::new(diff_digest(&self.op), usize::from(lower) + usize::from(upper));
        Box::pin(std::future::ready(Ok(map)))
    }

    fn exec<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(async move {
            let mut inputs = inputs.into_iter();
            let mut next = |given: bool| match given {
                true => {
                    inputs.next().ok_or_else(|| OpError::new(ErrorKind::User, "a difference lacks an input"))
                }
                false => Ok(None),
            };
            let (lower, upper) = self.given();
            let (lower, upper) = (next(lower)?, next(upper)?);
            let same = matches!((&lower, &upper), (Some(l), Some(u)) if l.id() == u.id());
            let difference = match (&lower, upper) {
                _ if same => None,
                (None, upper) => upper,
                (Some(lower), upper) => {
                    let about = About::new(cx.progress.name());
                    Some(self.snapshots.diff(Some(lower), upper.as_ref(), about).map_err(snapshot_error)?)
                }
            };
            Ok(vec![difference])
        })
    }
}

/// Hands its inputs on.
pub struct PassthroughOp {
    /// What is asked for.
    pub op: pb::PassthroughOp,
    /// How many inputs there are.
    pub inputs: usize,
}

impl Op<ResultRef> for PassthroughOp {
    fn cache_map<'a>(&'a self, _cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        let text = format!(
            "{{\"Type\":\"buildkit.passthrough.v0\",\"Passthrough\":{}}}",
            crosskit_llb::json::to_string(&self.op)
        );
        let map = CacheMap::new(crosskit_cache::KeyDigest::of(text.as_bytes()), self.inputs);
        Box::pin(std::future::ready(Ok(map)))
    }

    fn exec<'a>(
        &'a self,
        _cx: &'a OpContext,
        inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(async move {
            self.op
                .outputs
                .iter()
                .map(|input| {
                    usize::try_from(*input).ok().and_then(|i| inputs.get(i).cloned()).ok_or_else(|| {
                        OpError::new(ErrorKind::User, format!("passthrough has no input {input}"))
                    })
                })
                .collect()
        })
    }
}

/// An operation in an `Arc`, as the solver takes it.
pub fn shared(op: impl Op<ResultRef> + 'static) -> Arc<dyn Op<ResultRef>> {
    Arc::new(op)
}
