//! What is in a result, found by the daemon itself: no image is needed, and nothing is run.

use crate::GatewayError;
use crate::bridge::Bridge;
use crate::result::{Attested, FrontendResult};
use crate::scan::CORE;
use crosskit_api::control::VertexWarning;
use crosskit_attest::{BUILTIN_SCANNER, Content, Kind, REASON, SBOM_CORE, SPDX};
use crosskit_platforms::Platform;
use crosskit_sbom::{About, Found, Purpose, SbomError};
use crosskit_snapshots::Ref;
use crosskit_workers::ops;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who writes the documents.
const TOOL: &str = concat!("crosskit-sbom-", env!("CARGO_PKG_VERSION"));

/// What was found is kept under this name, beside the files that were looked through.
const KEPT: &str = "packages";

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
        let mut known = Vec::with_capacity(all.len());
        for (name, purpose, handle) in all {
            let snapshot = match handle {
                Some(handle) => handle.result().await?,
                None => None,
            };
            let found = known_of(snapshot.clone()).await;
            known.push((name, purpose, snapshot, found));
        }
        let step = bridge.job().step(format!("[{id}] generating sbom using {BUILTIN_SCANNER}"), None);
        let running = step.begin(known.iter().all(|(.., found)| found.is_some()));
        for (name, purpose, snapshot, found) in known {
            let looked = match found {
                Some(found) => Ok(found),
                None => look(bridge, snapshot).await,
            };
            let found = match looked {
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

/// What an earlier scan of a result has found.
async fn known_of(snapshot: Option<Ref>) -> Option<Found> {
    let snapshot = snapshot?;
    let reading = move || Found::from_kept(&snapshot.beside(KEPT)?);
    tokio::task::spawn_blocking(reading).await.ok().flatten()
}

/// Looks through a result's files, and keeps what is found.
async fn look(bridge: &Bridge, snapshot: Option<Ref>) -> Result<Found, GatewayError> {
    let snapshots = &bridge.shared().workers.local().snapshots;
    let tree = ops::mount_input(snapshots, snapshot.as_ref()).await?;
    /// Tells the one who looks that nobody waits any more.
    struct Waiting(Arc<AtomicBool>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let waiting = Waiting(Arc::clone(&stop));
    let looking = tokio::task::spawn_blocking(move || {
        let found = crosskit_sbom::scan(tree.mounted.path(), &stop)?;
        if let (Some(snapshot), Some(kept)) = (snapshot, found.to_kept())
            && let Err(why) = snapshot.keep_beside(KEPT, &kept)
        {
            tracing::debug!(id = snapshot.id(), %why, "what a scan has found was not kept");
        }
        Ok(found)
    });
    let looked = looking.await.map_err(|_| GatewayError::canceled())?;
    drop(waiting);
    looked.map_err(|e: SbomError| GatewayError::plain(e.to_string()))
}
