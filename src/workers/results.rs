//! Keeping results for later builds: a result is a snapshot, named by its id.

use crate::ResultRef;
use crosskit_cache::{CacheError, ErrorKind, LoadContext, Results};
use crosskit_snapshots::{Sessions, Snapshots};
use crosskit_solver::JobGroup;
use futures::future::BoxFuture;
use std::sync::Arc;

/// The name of the empty filesystem.
const EMPTY: &str = "empty";

/// Results as snapshots.
#[derive(Clone)]
pub struct SnapshotResults(pub Snapshots);

impl Results<ResultRef> for SnapshotResults {
    fn save(&self, result: &ResultRef) -> Result<String, CacheError> {
        Ok(result.as_ref().map_or(EMPTY, |r| r.id()).to_string())
    }

    fn exists(&self, id: &str) -> bool {
        id == EMPTY || self.0.contains(id)
    }

    fn load<'a>(&'a self, id: &'a str, cx: &'a LoadContext) -> BoxFuture<'a, Result<ResultRef, CacheError>> {
        let load = |message: String, kind| CacheError::Load { id: id.to_string(), message, kind };
        let found = match id {
            EMPTY => Ok(None),
            id => match self.0.get(id) {
                Ok(Some(found)) if found.is_within_reach() => {
                    for jobs in cx.all::<JobGroup>() {
                        let who: Sessions = Arc::new(move || jobs.sessions());
                        found.serve(&who);
                    }
                    Ok(Some(found))
                }
                // The source that it comes from names somebody who can get it.
                Ok(Some(_)) => {
                    Err(load("nobody is known who has its layers".to_string(), ErrorKind::Unavailable))
                }
                Ok(None) => Err(load("it has been collected".to_string(), ErrorKind::Environment)),
                Err(e) => Err(load(e.to_string(), ErrorKind::Environment)),
            },
        };
        Box::pin(std::future::ready(found))
    }
}
