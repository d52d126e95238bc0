//! The health service: answers that the daemon serves, as long as it does.

use crosskit_api::health::health_check_response::ServingStatus;
use crosskit_api::health::{HealthCheckRequest, HealthCheckResponse, health_server::Health};
use futures::stream::{BoxStream, StreamExt};
use tonic::{Request, Response, Status};

/// The health service.
pub struct Service;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving.into() }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // The state never changes while the connection lives.
        let states = futures::stream::once(async { Ok(serving()) }).chain(futures::stream::pending());
        Ok(Response::new(states.boxed()))
    }
}
