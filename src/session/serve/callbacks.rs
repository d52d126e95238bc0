//! Services that hand the daemon's questions to the program around the session.

use crate::RequestedExporter;
use crosskit_api::exporter::exporter_server::Exporter;
use crosskit_api::exporter::{
    ExporterRequest, FinalizeExportRequest, FinalizeExportResponse, FindExportersRequest,
    FindExportersResponse,
};
use crosskit_api::health::health_check_response::ServingStatus;
use crosskit_api::health::health_server::Health;
use crosskit_api::health::{HealthCheckRequest, HealthCheckResponse};
use crosskit_api::sourcepolicy::policysession::policy_verifier_server::PolicyVerifier;
use crosskit_api::sourcepolicy::policysession::{CheckPolicyRequest, CheckPolicyResponse};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Names the exporters for a result with this metadata and these platforms.
pub type ExporterCallback = Arc<
    dyn Fn(
            BTreeMap<String, Vec<u8>>,
            Vec<String>,
        ) -> BoxFuture<'static, Result<Vec<RequestedExporter>, Status>>
        + Send
        + Sync,
>;

/// Is told what came of the export.
pub type FinalizeCallback =
    Arc<dyn Fn(BTreeMap<String, String>) -> BoxFuture<'static, Result<(), Status>> + Send + Sync>;

/// Decides about a source, or asks for more about it.
pub type PolicyCallback =
    Arc<dyn Fn(CheckPolicyRequest) -> BoxFuture<'static, Result<CheckPolicyResponse, Status>> + Send + Sync>;

pub(super) struct Exporters {
    pub(super) find: ExporterCallback,
    pub(super) finalize: Option<FinalizeCallback>,
}

#[tonic::async_trait]
impl Exporter for Exporters {
    async fn find_exporters(
        &self,
        request: Request<FindExportersRequest>,
    ) -> Result<Response<FindExportersResponse>, Status> {
        let request = request.into_inner();
        let found = (self.find)(request.metadata, request.refs).await?;
        let exporters =
            found.into_iter().map(|e| ExporterRequest { r#type: e.kind, attrs: e.attrs }).collect();
        Ok(Response::new(FindExportersResponse { exporters }))
    }

    async fn finalize_export(
        &self,
        request: Request<FinalizeExportRequest>,
    ) -> Result<Response<FinalizeExportResponse>, Status> {
        let Some(finalize) = &self.finalize else {
            return Err(Status::unimplemented("no exporter finalize callback registered"));
        };
        finalize(request.into_inner().exporter_response).await?;
        Ok(Response::new(FinalizeExportResponse {}))
    }
}

pub(super) struct Policy {
    pub(super) check: PolicyCallback,
}

#[tonic::async_trait]
impl PolicyVerifier for Policy {
    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        (self.check)(request.into_inner()).await.map(Response::new)
    }
}

/// As long as it answers at all, a client is well.
pub(super) struct Healthy;

impl Healthy {
    fn answer() -> HealthCheckResponse {
        HealthCheckResponse { status: ServingStatus::Serving as i32 }
    }
}

#[tonic::async_trait]
impl Health for Healthy {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(Self::answer()))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let first = futures::stream::once(async { Ok(Self::answer()) });
        Ok(Response::new(Box::pin(first.chain(futures::stream::pending()))))
    }
}
