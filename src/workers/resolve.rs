//! Answers what frontends want to know of sources before they plan.

use crate::Workers;
use crate::ops::source::{reporting, source_error};
use crate::workers::from_message;
use crosskit_api::frontend::{
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse,
};
use crosskit_api::pb;
use crosskit_solver::{ErrorKind, JobContext, JobGroup, OpError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The kind of resolver that means an OCI layout at the client.
const OCI_LAYOUT_RESOLVER: i32 = 1;

impl Workers {
    /// The digest and the config of an image.
    ///
    /// # Errors
    /// An image that isn't there or can't be reached.
    pub async fn resolve_image_config(
        &self,
        job: &JobContext,
        request: ResolveImageConfigRequest,
    ) -> Result<ResolveImageConfigResponse, OpError> {
        let mut attrs = BTreeMap::new();
        let mut set = |key: &str, value: &str| {
            if !value.is_empty() {
                attrs.insert(key.to_string(), value.to_string());
            }
        };
        let scheme = match request.resolver_type {
            OCI_LAYOUT_RESOLVER => {
                set("oci.session", &request.session_id);
                set("oci.store", &request.store_id);
                "oci-layout"
            }
            _ => {
                set("image.resolvemode", &request.resolve_mode);
                "docker-image"
            }
        };
        let source = pb::SourceOp { identifier: format!("{scheme}://{}", request.r#ref), attrs };
        let meta = self
            .resolve_source_meta(
                job,
                ResolveSourceMetaRequest {
                    source: Some(source),
                    platform: request.platform,
                    log_name: request.log_name,
                    resolve_mode: request.resolve_mode,
                    ..ResolveSourceMetaRequest::default()
                },
            )
            .await?;
        let image = meta
            .image
            .ok_or_else(|| OpError::new(ErrorKind::User, format!("{} is no image", request.r#ref)))?;
        Ok(ResolveImageConfigResponse { digest: image.digest, config: image.config, r#ref: request.r#ref })
    }

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
