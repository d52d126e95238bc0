//! One build at a worker: the step, and the export of one of its outputs.

use super::definition::StepDefinition;
use super::session::RemoteSession;
use super::status::{Followed, follow};
use crosskit_api::control::{Exporter, SolveRequest};
use crosskit_solver::VertexProgress;
use std::collections::BTreeMap;
use tonic::Status;

/// How results come: as blobs, not as an archive, and not compressed, as whoever compresses is
/// the endpoint.
const EXPORT: [(&str, &str); 3] =
    [("tar", "false"), ("compression", "uncompressed"), ("oci-mediatypes", "true")];

/// What the exporter told, or how the call ended.
pub(super) type Solved = Result<BTreeMap<String, String>, Status>;

/// A build that was not sent yet.
pub(super) struct Solving<'a> {
    session: &'a RemoteSession,
    request: SolveRequest,
}

impl<'a> Solving<'a> {
    /// A build of an output of a step. Without `export`, the step is only run.
    pub(super) fn new(
        session: &'a RemoteSession,
        step: &StepDefinition,
        output: usize,
        export: bool,
    ) -> Solving<'a> {
        let attrs = EXPORT.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
        let exporter = Exporter { r#type: "oci".to_string(), attrs };
        let request = SolveRequest {
            r#ref: reference(),
            session: session.id.clone(),
            definition: Some(step.for_output(output)),
            exporters: Some(exporter).filter(|_| export).into_iter().collect(),
            entitlements: step.entitlements.clone(),
            // It is a part of a build that has its history here.
            internal: true,
            ..SolveRequest::default()
        };
        Solving { session, request }
    }

    /// Follows what is reported of it.
    pub(super) fn follow(&self, step: &StepDefinition, progress: VertexProgress) -> Followed {
        follow(&self.session.line, self.request.r#ref.clone(), step.names(), step.pulls(), progress)
    }

    /// Runs it. Dropping the future cancels it at the worker.
    pub(super) async fn run(self) -> Solved {
        let mut calls = self.session.line.control();
        Ok(calls.solve(self.request).await?.into_inner().exporter_response)
    }
}

/// A name that no other build has.
fn reference() -> String {
    format!("crosskit-{:032x}", rand::random::<u128>())
}
