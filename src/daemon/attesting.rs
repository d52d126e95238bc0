//! What a build wants attested of its result, and what it gives.

use crate::exporting::export_error;
use crosskit_api::control::SolveRequest;
use crosskit_api::version;
use crosskit_attest::{Asked, Circumstances, Content, Provenance};
use crosskit_exporters::{Attested, Export};
use crosskit_gateway::bridge::Bridge;
use crosskit_gateway::provenance::{self, Sketch};
use crosskit_gateway::{FrontendResult, GatewayError};
use crosskit_platforms::Platform;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Steps of all results of a build, beyond which the history keeps no provenance of it: telling how each of very many
/// steps was made takes longer than such a build where nothing has changed.
const REMEMBERED_STEPS: usize = 5_000;

/// What a build wants attested.
///
/// # Errors
/// Kinds and options that there are none of.
pub fn asked(options: &BTreeMap<String, String>) -> Result<Asked, GatewayError> {
    let fields = crosskit_dockerfile::csv_fields;
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
    let platforms = platforms(export)?;
    if let Some(sbom) = &asked.sbom {
        let now = epoch(&request.frontend_attrs).unwrap_or_else(seconds_now);
        let times: BTreeMap<String, i64> = export
            .platforms()
            .map_err(export_error)?
            .into_iter()
            .map(|platform| Ok((platform.id.clone(), export.epoch(&platform)?.unwrap_or(now))))
            .collect::<Result<_, _>>()
            .map_err(export_error)?;
        let created = |id: &str| times.get(id).copied().unwrap_or(now);
        crosskit_gateway::scan(bridge, result, sbom, &request.frontend_attrs, &platforms, created).await?;
    }
    if let Some(wanted) = &asked.provenance {
        provenance::add(bridge, result, wanted, about, &platforms, version::DOCKERFILE).await?;
    }
    Ok(())
}

/// How the results of a build were made, for the history: everything is told. What can't be told is left out, as the
/// build has succeeded without, and so are builds of very many steps.
pub async fn remembered(
    bridge: &Arc<Bridge>,
    result: &FrontendResult,
    export: &Export,
    asked: Option<Provenance>,
    about: &Circumstances,
) -> Vec<(String, Sketch)> {
    let steps: usize = result.handles().iter().map(|handle| handle.graph().len()).sum();
    if steps > REMEMBERED_STEPS {
        return Vec::new();
    }
    let builder_id = asked.map(|asked| asked.builder_id).unwrap_or_default();
    let wanted = Provenance { builder_id, capture_usage: true, ..Provenance::default() };
    let sketches = async {
        let platforms = platforms(export)?;
        provenance::sketches(bridge, result, &wanted, about, &platforms, version::DOCKERFILE).await
    };
    sketches.await.unwrap_or_else(|e| {
        tracing::debug!("no provenance for the history: {}", e.message());
        Vec::new()
    })
}

/// The time that the client wants everything to be of, in seconds since 1970.
fn epoch(options: &BTreeMap<String, String>) -> Option<i64> {
    options.get("build-arg:SOURCE_DATE_EPOCH")?.parse().ok()
}

fn seconds_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn platforms(export: &Export) -> Result<Vec<(String, Platform)>, GatewayError> {
    let platforms = export.platforms().map_err(export_error)?;
    Ok(platforms.into_iter().map(|named| (named.id, named.platform)).collect())
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
