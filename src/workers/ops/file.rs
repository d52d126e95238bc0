//! Operations on files: copying, making, removing.

use super::exec::dep;
use super::left::LeftOver;
use crate::keys::{file_digest, file_inputs};
use crate::{LocalParts, ResultRef};
use crosskit_api::details::{self, solve::Subject};
use crosskit_api::pb;
use crosskit_fileops::Failure;
use crosskit_solver::{CacheDep, CacheMap, ErrorKind, Op, OpContext, OpError};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Runs actions on files.
pub struct FileOp {
    /// What is asked for.
    pub op: pb::FileOp,
    /// How many inputs there are.
    pub inputs: usize,
    /// Where the files are.
    pub parts: Arc<LocalParts>,
}

impl Op<ResultRef> for FileOp {
    fn cache_map<'a>(&'a self, _cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        Box::pin(std::future::ready(self.map()))
    }

    fn exec<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(async move {
            crosskit_fileops::run(&self.parts.snapshots, &self.op, &inputs, cx.progress.name())
                .await
                .map_err(|failure| failed(failure, inputs))
        })
    }
}

impl FileOp {
    fn map(&self) -> Result<CacheMap<ResultRef>, OpError> {
        let keys =
            file_inputs(&self.op, self.inputs).map_err(|e| OpError::new(ErrorKind::User, e.to_string()))?;
        let deps: Vec<CacheDep<ResultRef>> = keys.into_iter().map(dep).collect();
        Ok(CacheMap { digest: file_digest(&self.op, self.inputs), deps, load_with: None })
    }
}

/// A failed action as an error of the operation.
fn failed(failure: Failure, inputs: Vec<ResultRef>) -> OpError {
    use crosskit_fileops::Kind;
    let kind = match failure.source.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    let action = failure.action.and_then(|a| i64::try_from(a).ok());
    let error = OpError::from_error(kind, failure.source);
    match action {
        Some(index) => error
            .about(Subject::File(details::FileAction { index }))
            .attach(Arc::new(LeftOver { inputs, mounts: failure.made })),
        None => error,
    }
}
