//! From a frontend's result to what is exported: everything is computed, and it is decided what
//! becomes of platforms that failed.

use crosskit_api::control::VertexWarning;
use crosskit_exporters::Export;
use crosskit_gateway::bridge::Bridge;
use crosskit_gateway::platforms::{self, Failed, OnFailure};
use crosskit_gateway::{FrontendResult, GatewayError, Refs};
use std::collections::BTreeMap;

/// The key under which clients are told which platforms are missing, and why.
const FAILED: &str = "dev.crosskit.platforms.failed";

/// A result that can be exported.
pub struct Computed {
    /// What is left of the frontend's.
    pub result: FrontendResult,
    /// What is exported of it.
    pub export: Export,
    /// What clients are told of it.
    pub told: BTreeMap<String, String>,
}

/// Computes everything that a result needs.
///
/// # Errors
/// The first failure of a vertex; all of them where platforms go on when one has failed.
pub async fn compute(bridge: &Bridge, mut result: FrontendResult) -> Result<Computed, GatewayError> {
    bridge.compute(&result).await?;
    let failed = bridge.failed();
    let mut told = BTreeMap::new();
    if let (Refs::ByPlatform(handles), false) = (&mut result.refs, failed.is_empty()) {
        handles.retain(|platform, _| !failed.contains_key(platform));
        let finished: Vec<_> = handles.keys().map(String::as_str).collect();
        let partial = OnFailure::KeepGoing { allow_partial: true };
        if finished.is_empty() || bridge.shared().on_failure != partial {
            return Err(platforms::failure(&failed, &finished));
        }
        warn(bridge, &failed, &finished);
        platforms::forget(&mut result.metadata, &failed);
        told.insert(FAILED.to_string(), reasons(&failed));
    }
    let mut export = Export { metadata: result.metadata.clone(), ..Export::default() };
    match &result.refs {
        Refs::One(None) => {}
        Refs::One(Some(handle)) => export.single = handle.result().await?,
        Refs::ByPlatform(handles) => {
            export.is_map = true;
            for (platform, handle) in handles {
                let found = match handle {
                    Some(handle) => handle.result().await?,
                    None => None,
                };
                export.by_platform.insert(platform.clone(), found);
            }
        }
    }
    Ok(Computed { result, export, told })
}

/// Has those results made again that can't be had any more; false if there are none.
///
/// # Errors
/// The first failure of a vertex.
pub async fn redo(result: &FrontendResult, export: &mut Export) -> Result<bool, GatewayError> {
    let mut again = false;
    match &result.refs {
        Refs::One(None) => {}
        Refs::One(Some(handle)) => {
            if handle.redo().await {
                again = true;
                export.single = handle.result().await?;
            }
        }
        Refs::ByPlatform(handles) => {
            for (platform, handle) in handles {
                if let Some(handle) = handle
                    && handle.redo().await
                {
                    again = true;
                    export.by_platform.insert(platform.clone(), handle.result().await?);
                }
            }
        }
    }
    Ok(again)
}

/// Tells whoever looks that something is missing.
fn warn(bridge: &Bridge, failed: &Failed, finished: &[&str]) {
    let missing: Vec<_> = failed.keys().map(String::as_str).collect();
    let name = format!("[partial result] {} without {}", finished.join(", "), missing.join(", "));
    let step = bridge.job().step(name, None);
    let running = step.begin(false);
    for (id, error) in failed {
        let short = format!("{id} failed and is no part of the result: {}", error.message());
        step.warn(VertexWarning { level: 1, short: short.into_bytes(), ..VertexWarning::default() });
    }
    running.end(None);
}

/// JSON in base64, as clients expect of values that are no plain text.
fn reasons(failed: &Failed) -> String {
    use base64::Engine as _;
    let reasons: BTreeMap<_, _> = failed.iter().map(|(id, error)| (id, error.message())).collect();
    let json = serde_json::to_vec(&reasons).unwrap_or_default();
    base64::engine::general_purpose::STANDARD.encode(json)
}
