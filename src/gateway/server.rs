//! The LLBBridge service: calls of frontends, given to the conversation that they belong to.

use crate::builds::Builds;
use crate::forwarder::Forwarder;
use crosskit_api::frontend::{self as api, llb_bridge_server::LlbBridge};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Whose conversation a call belongs to.
#[derive(Clone)]
pub enum Calls {
    /// Of the build that the call's metadata names.
    ByBuild(Builds),
    /// Of this one: the connection is the frontend's own.
    Of(Arc<Forwarder>),
}

impl Calls {
    async fn forwarder(&self, metadata: &MetadataMap, call: &str) -> Result<Arc<Forwarder>, Status> {
        match self {
            Calls::Of(forwarder) => Ok(Arc::clone(forwarder)),
            Calls::ByBuild(builds) => {
                Ok(builds.find(metadata).await.map_err(|e| e.while_doing(&format!("forwarding {call}")))?)
            }
        }
    }
}

/// Calls that are answered by one method of the conversation.
macro_rules! forward {
    ($self:ident, $request:ident, $call:literal, |$forwarder:ident, $message:ident| $answer:expr) => {{
        let $forwarder = $self.forwarder($request.metadata(), $call).await?;
        let $message = $request.into_inner();
        Ok(Response::new($answer))
    }};
}

#[tonic::async_trait]
impl LlbBridge for Calls {
    async fn ping(&self, request: Request<api::PingRequest>) -> Result<Response<api::PongResponse>, Status> {
        forward!(self, request, "Ping", |f, _m| f.ping().await)
    }

    async fn inputs(
        &self,
        request: Request<api::InputsRequest>,
    ) -> Result<Response<api::InputsResponse>, Status> {
        forward!(self, request, "Inputs", |f, _m| f.inputs())
    }

    async fn resolve_image_config(
        &self,
        request: Request<api::ResolveImageConfigRequest>,
    ) -> Result<Response<api::ResolveImageConfigResponse>, Status> {
        forward!(self, request, "ResolveImageConfig", |f, m| f.resolve_image_config(m).await?)
    }

    async fn resolve_source_meta(
        &self,
        request: Request<api::ResolveSourceMetaRequest>,
    ) -> Result<Response<api::ResolveSourceMetaResponse>, Status> {
        forward!(self, request, "ResolveSourceMeta", |f, m| f.resolve_source_meta(m).await?)
    }

    async fn solve(
        &self,
        request: Request<api::SolveRequest>,
    ) -> Result<Response<api::SolveResponse>, Status> {
        forward!(self, request, "Solve", |f, m| f.solve(m).await?)
    }

    async fn evaluate(
        &self,
        request: Request<api::EvaluateRequest>,
    ) -> Result<Response<api::EvaluateResponse>, Status> {
        forward!(self, request, "Evaluate", |f, m| {
            f.evaluate(m).await?;
            api::EvaluateResponse {}
        })
    }

    async fn read_file(
        &self,
        request: Request<api::ReadFileRequest>,
    ) -> Result<Response<api::ReadFileResponse>, Status> {
        forward!(self, request, "ReadFile", |f, m| api::ReadFileResponse { data: f.read_file(m).await? })
    }

    async fn read_dir(
        &self,
        request: Request<api::ReadDirRequest>,
    ) -> Result<Response<api::ReadDirResponse>, Status> {
        forward!(self, request, "ReadDir", |f, m| api::ReadDirResponse { entries: f.read_dir(m).await? })
    }

    async fn stat_file(
        &self,
        request: Request<api::StatFileRequest>,
    ) -> Result<Response<api::StatFileResponse>, Status> {
        forward!(self, request, "StatFile", |f, m| api::StatFileResponse {
            stat: Some(f.stat_file(m).await?)
        })
    }

    async fn warn(&self, request: Request<api::WarnRequest>) -> Result<Response<api::WarnResponse>, Status> {
        forward!(self, request, "Warn", |f, m| {
            f.warn(m)?;
            api::WarnResponse {}
        })
    }

    async fn r#return(
        &self,
        request: Request<api::ReturnRequest>,
    ) -> Result<Response<api::ReturnResponse>, Status> {
        forward!(self, request, "Return", |f, m| {
            f.r#return(m)?;
            api::ReturnResponse {}
        })
    }

    async fn new_container(
        &self,
        request: Request<api::NewContainerRequest>,
    ) -> Result<Response<api::NewContainerResponse>, Status> {
        forward!(self, request, "NewContainer", |f, m| {
            f.new_container(m).await?;
            api::NewContainerResponse {}
        })
    }

    type ExecProcessStream = ReceiverStream<Result<api::ExecMessage, Status>>;

    async fn exec_process(
        &self,
        request: Request<Streaming<api::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        forward!(self, request, "ExecProcess", |f, m| f.exec_process(m))
    }

    async fn read_file_container(
        &self,
        request: Request<api::ReadFileRequest>,
    ) -> Result<Response<api::ReadFileResponse>, Status> {
        forward!(self, request, "ReadFileContainer", |f, m| api::ReadFileResponse {
            data: f.read_file_container(m).await?
        })
    }

    async fn read_dir_container(
        &self,
        request: Request<api::ReadDirRequest>,
    ) -> Result<Response<api::ReadDirResponse>, Status> {
        forward!(self, request, "ReadDirContainer", |f, m| api::ReadDirResponse {
            entries: f.read_dir_container(m).await?
        })
    }

    async fn stat_file_container(
        &self,
        request: Request<api::StatFileRequest>,
    ) -> Result<Response<api::StatFileResponse>, Status> {
        forward!(self, request, "StatFileContainer", |f, m| api::StatFileResponse {
            stat: Some(f.stat_file_container(m).await?)
        })
    }

    async fn release_container(
        &self,
        request: Request<api::ReleaseContainerRequest>,
    ) -> Result<Response<api::ReleaseContainerResponse>, Status> {
        forward!(self, request, "ReleaseContainer", |f, m| {
            f.release_container(m).await?;
            api::ReleaseContainerResponse {}
        })
    }
}
