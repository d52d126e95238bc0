//! What frontends want to know of sources before they plan.

use crate::GatewayError;
use crate::bridge::Bridge;
use crate::policies::rules;
use crosskit_api::{frontend, pb};
use crosskit_images::registry::Reference;

/// The kind of resolver that means an OCI layout at the client.
const OCI_LAYOUT_RESOLVER: i32 = 1;

const IMAGE: &str = "docker-image://";
const LAYOUT: &str = "oci-layout://";

/// What the name of an image stands for.
pub(crate) enum Named {
    /// An image.
    Image(frontend::ResolveImageConfigResponse),
    /// By a policy, something else: the identifier of a source.
    Other {
        /// The image's full name.
        reference: String,
        /// What is used instead.
        source: String,
    },
}

/// An image as a source.
fn image_source(request: &frontend::ResolveImageConfigRequest, reference: &str) -> pb::SourceOp {
    let mut source = pb::SourceOp { identifier: format!("{IMAGE}{reference}"), ..pb::SourceOp::default() };
    if request.resolver_type == OCI_LAYOUT_RESOLVER {
        source.identifier = format!("{LAYOUT}{reference}");
        for (key, value) in [("oci.session", &request.session_id), ("oci.store", &request.store_id)] {
            if !value.is_empty() {
                source.attrs.insert(key.to_string(), value.clone());
            }
        }
    }
    source
}

impl Bridge {
    /// Asks for an image's config.
    ///
    /// # Errors
    /// An image that isn't there or can't be reached, or that isn't one by a policy.
    pub async fn resolve_image_config(
        &self,
        request: frontend::ResolveImageConfigRequest,
    ) -> Result<frontend::ResolveImageConfigResponse, GatewayError> {
        match self.look_up_image(request).await? {
            Named::Image(found) => Ok(found),
            Named::Other { reference, source } => Err(GatewayError::plain(format!(
                "ref mutated by policy to non-image: {IMAGE}{reference} -> {source}"
            ))),
        }
    }

    pub(crate) async fn look_up_image(
        &self,
        request: frontend::ResolveImageConfigRequest,
    ) -> Result<Named, GatewayError> {
        let name = &request.r#ref;
        let parsed = Reference::parse(name)
            .map_err(|e| GatewayError::plain(format!("could not parse reference {name:?}: {e}")))?;
        let reference = parsed.to_string();
        let question = frontend::ResolveSourceMetaRequest {
            source: Some(image_source(&request, &reference)),
            platform: request.platform,
            log_name: request.log_name,
            resolve_mode: request.resolve_mode,
            source_policies: request.source_policies,
            ..frontend::ResolveSourceMetaRequest::default()
        };
        let found = self
            .resolve_source_meta(question)
            .await
            .map_err(|e| e.while_doing(&format!("failed to resolve source metadata for {reference}")))?;
        let identifier = found.source.unwrap_or_default().identifier;
        let Some(image) = found.image else { return Ok(Named::Other { reference, source: identifier }) };
        let shown = identifier.strip_prefix(IMAGE).or_else(|| identifier.strip_prefix(LAYOUT));
        Ok(Named::Image(frontend::ResolveImageConfigResponse {
            digest: image.digest,
            config: image.config,
            r#ref: shown.unwrap_or(&identifier).to_string(),
        }))
    }

    /// Asks for the facts of a source, or of the one that policies want in its place.
    ///
    /// # Errors
    /// A source that isn't there, can't be reached or may not be used.
    pub async fn resolve_source_meta(
        &self,
        mut request: frontend::ResolveSourceMetaRequest,
    ) -> Result<frontend::ResolveSourceMetaResponse, GatewayError> {
        let asked = request.source.take().ok_or_else(|| GatewayError::invalid("source is required"))?;
        if request.log_name.is_empty() {
            request.log_name = format!("resolve image config for {}", asked.identifier);
        }
        let is_image = asked.identifier.starts_with(IMAGE) || asked.identifier.starts_with(LAYOUT);
        let platform = request.platform.as_ref().filter(|_| is_image);
        let first = rules(std::mem::take(&mut request.source_policies))?;
        let source = self.converted_source(asked, platform, &first).await?;
        let (identifier, platform) = (source.identifier.clone(), request.platform.clone());
        request.source = Some(source);
        let found = self.shared().workers.resolve_source_meta(self.job(), request).await?;
        if let (Some(image), Some((scheme, name))) = (&found.image, identifier.split_once("://")) {
            self.scope().resolved(name, platform, &image.digest, scheme != "docker-image");
        }
        Ok(found)
    }
}
