//! Answers what frontends want to know of sources before they plan.

use crate::Workers;
use crate::ops::source::{reporting, source_error};
use crate::workers::from_message;
use crosskit_api::frontend::{ResolveSourceMetaRequest, ResolveSourceMetaResponse};
use crosskit_solver::{JobContext, JobGroup, OpError};
use std::sync::Arc;

impl Workers {
    /// The facts of a source. Asked once in a build, with a step of its own in the progress.
    ///
    /// # Errors
    /// A source that isn't there or can't be reached.
    pub async fn resolve_source_meta(
        &self,
        job: &JobContext,
        request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, OpError> {
        let identifier = request.source.as_ref().map(|s| s.identifier.clone()).unwrap_or_default();
        let platform = request.platform.as_ref().map_or_else(crosskit_platforms::native, from_message);
        let id = format!("{identifier}{}", platform.format_all());
        let name = match request.log_name.as_str() {
            "" => format!("resolve image config for {identifier}"),
            name => name.to_string(),
        };
        let step = job.step(name, Some(&id));
        let key = format!("source-meta {request:?}");
        let found: Arc<ResolveSourceMetaResponse> = job
            .decide_once(&key, async {
                let running = step.begin(false);
                let cx = reporting(JobGroup::of(job), step.clone());
                let found =
                    self.local().sources.resolve_source_meta(&request, &cx).await.map_err(source_error);
                running.end(found.as_ref().err().map(ToString::to_string).as_deref());
                found
            })
            .await?;
        Ok(found.as_ref().clone())
    }
}
