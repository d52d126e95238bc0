//! What is in a result, found by the daemon itself: no image is needed, and nothing is run.

use crate::GatewayError;
use crate::bridge::Bridge;
use crate::result::{Attested, FrontendResult, Handle};
use crate::scan::CORE;
use crosskit_api::control::VertexWarning;
use crosskit_attest::{BUILTIN_SCANNER, Content, Kind, REASON, SBOM_CORE, SPDX};
use crosskit_platforms::Platform;
use crosskit_sbom::{About, Found, Purpose};
use crosskit_workers::ops;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who writes the documents.
const TOOL: &str = concat!("crosskit-sbom-", env!("CARGO_PKG_VERSION"));

/// The context, among what else is scanned.
const CONTEXT: &str = "context";

/// Adds what is in the result of each platform, and in what its frontend wants scanned besides.
pub(crate) async fn scan(
    bridge: &Arc<Bridge>,
    result: &mut FrontendResult,
    platforms: &[(String, Platform)],
    created: impl Fn(&str) -> i64,
) -> Result<(), GatewayError> {
    for (id, _) in platforms {
        let extras = result.scans.get(id);
        let core = result.of(id).cloned();
        if core.is_none() && extras.is_none() {
            continue;
        }
        let mut all = vec![(CORE.to_string(), Purpose::Container, core)];
        for (name, graph) in extras.into_iter().flat_map(|extras| &extras.graphs) {
            let purpose = if name == CONTEXT { Purpose::Source } else { Purpose::Container };
            all.push((format!("{CORE}-{name}"), purpose, bridge.load_graph(graph.clone(), &[]).await?));
        }
        let step = bridge.job().step(format!("[{id}] generating sbom using {BUILTIN_SCANNER}"), None);
        let running = step.begin(false);
        for (name, purpose, handle) in all {
            let found = match look(bridge, handle).await {
                Ok(found) => found,
                Err(e) => {
                    running.end(Some(e.message()));
                    return Err(e);
                }
            };
            for why in &found.left_out {
                let short = format!("{name}: {why}").into_bytes();
                step.warn(VertexWarning { level: 1, short, ..VertexWarning::default() });
            }
            let about = About { name: &name, purpose, created: created(id), tool: TOOL };
            result.attestations.entry(id.clone()).or_default().push(Attested {
                kind: Kind::InToto,
                metadata: BTreeMap::from([
                    (REASON.to_string(), b"sbom".to_vec()),
                    (SBOM_CORE.to_string(), CORE.as_bytes().to_vec()),
                ]),
                path: format!("{name}.spdx.json"),
                predicate_type: SPDX.to_string(),
                subjects: Vec::new(),
                content: Content::Ready(Arc::from(found.to_spdx(&about))),
            });
        }
        running.end(None);
    }
    Ok(())
}

/// Looks through a result's files.
async fn look(bridge: &Bridge, handle: Option<Handle>) -> Result<Found, GatewayError> {
    let found = match handle {
        Some(handle) => handle.result().await?,
        None => None,
    };
    let snapshots = &bridge.shared().workers.local().snapshots;
    let tree = ops::mount_input(snapshots, found.as_ref()).await?;
    /// Tells the one who looks that nobody waits any more.
    struct Waiting(Arc<AtomicBool>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let waiting = Waiting(Arc::clone(&stop));
    let looking = tokio::task::spawn_blocking(move || crosskit_sbom::scan(tree.mounted.path(), &stop));
    let looked = looking.await.map_err(|_| GatewayError::canceled())?;
    drop(waiting);
    looked.map_err(|e| GatewayError::plain(e.to_string()))
}
