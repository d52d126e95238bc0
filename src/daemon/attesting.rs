//! What a build wants attested of its result, and what it gives.

use crate::exporting::export_error;
use crate::version;
use crosskit_api::control::SolveRequest;
use crosskit_attest::{Asked, Circumstances, Content};
use crosskit_exporters::{Attested, Export};
use crosskit_gateway::bridge::Bridge;
use crosskit_gateway::{FrontendResult, GatewayError, provenance};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a build wants attested.
///
/// # Errors
/// Kinds and options that there are none of.
pub fn asked(options: &BTreeMap<String, String>) -> Result<Asked, GatewayError> {
    let fields = |record: &str| crosskit_dockerfile::csv_fields(record).map_err(str::to_string);
    Asked::parse(options, fields).map_err(provenance::attest_error)
}

/// What provenance tells of a build of this daemon besides what went into it.
pub fn circumstances() -> Circumstances {
    Circumstances {
        invocation: format!("{:025x}", rand::random::<u128>()),
        builder_platform: crosskit_platforms::native().normalize().format(),
        ..Circumstances::default()
    }
}

/// Adds what the build wants attested.
///
/// # Errors
/// A scanner that fails, and materials that aren't known exactly where that was asked for.
pub async fn attest(
    bridge: &Arc<Bridge>,
    result: &mut FrontendResult,
    export: &Export,
    asked: &Asked,
    request: &SolveRequest,
    about: &Circumstances,
) -> Result<(), GatewayError> {
    if *asked == Asked::default() {
        return Ok(());
    }
    let platforms = export.platforms().map_err(export_error)?;
    let platforms: Vec<_> = platforms.into_iter().map(|named| (named.id, named.platform)).collect();
    if let Some(sbom) = &asked.sbom {
        crosskit_gateway::scan(bridge, result, sbom, &request.frontend_attrs, &platforms).await?;
    }
    if let Some(wanted) = &asked.provenance {
        provenance::add(bridge, result, wanted, about, &platforms, version::DOCKERFILE).await?;
    }
    Ok(())
}

/// What is attested of a result, with the files that it is in.
///
/// # Errors
/// What fails in a step that attests.
pub async fn given(result: &FrontendResult) -> Result<BTreeMap<String, Vec<Attested>>, GatewayError> {
    let mut all = BTreeMap::new();
    for (platform, listed) in &result.attestations {
        let mut of_platform = Vec::with_capacity(listed.len());
        for attested in listed {
            let content = match &attested.content {
                Content::Files(Some(handle)) => Content::Files(handle.result().await?),
                Content::Files(None) => Content::Files(None),
                Content::Made(make) => Content::Made(Arc::clone(make)),
                Content::Ready(bytes) => Content::Ready(Arc::clone(bytes)),
            };
            of_platform.push(Attested {
                kind: attested.kind,
                metadata: attested.metadata.clone(),
                path: attested.path.clone(),
                predicate_type: attested.predicate_type.clone(),
                subjects: attested.subjects.clone(),
                content,
            });
        }
        all.insert(platform.clone(), of_platform);
    }
    Ok(all)
}
