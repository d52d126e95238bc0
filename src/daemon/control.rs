//! The Control service: the daemon's front door.

use crate::builds::Builder;
use crate::history::{History, HistoryError};
use crosskit_api::control::{self as api, control_server::Control};
use crosskit_api::types;
use crosskit_api::version;
use crosskit_session::SessionManager;
use crosskit_snapshots::filters::Filters;
use crosskit_snapshots::{PruneOptions, Usage};
use futures::stream::{BoxStream, StreamExt};
use std::sync::Arc;
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The header in which clients are told what time it is here, RFC 3339 (BuildKit `control`).
const TIMESTAMP: &str = "buildkit-current-timestamp";

/// The Control service.
pub struct Service {
    /// Who runs builds.
    pub builder: Arc<Builder>,
    /// The clients.
    pub sessions: SessionManager,
    /// What is remembered.
    pub history: History,
    /// Cancelled when the daemon stops.
    pub stop: CancellationToken,
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Control for Service {
    async fn solve(
        &self,
        request: Request<api::SolveRequest>,
    ) -> Result<Response<api::SolveResponse>, Status> {
        let response = Box::pin(self.builder.solve(request.into_inner())).await?;
        Ok(Response::new(response))
    }

    type StatusStream = Stream<api::StatusResponse>;

    async fn status(
        &self,
        request: Request<api::StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let key = request.into_inner().r#ref;
        self.history.settled(Some(&key)).await;
        if let Some(past) = self.history.progress(&key).map_err(|e| Status::internal(e.to_string()))? {
            return Ok(at_our_time(futures::stream::iter(past.into_iter().map(Ok)).boxed()));
        }
        let progress = self.builder.progress(&key).await?;
        Ok(at_our_time(progress.map(Ok).boxed()))
    }

    type SessionStream = Stream<api::BytesMessage>;

    async fn session(
        &self,
        request: Request<Streaming<api::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let outgoing = self.sessions.open(&metadata.into_headers(), incoming);
        Ok(Response::new(outgoing.boxed()))
    }

    async fn list_workers(
        &self,
        request: Request<api::ListWorkersRequest>,
    ) -> Result<Response<api::ListWorkersResponse>, Status> {
        let filters = Filters::parse(&request.into_inner().filter)
            .map_err(|why| Status::unknown(format!("{why}: invalid argument")))?;
        let mut record = self.builder.worker_records().await;
        record.retain(|r| filters.matches(&WorkerFields(r)));
        Ok(Response::new(api::ListWorkersResponse { record }))
    }

    async fn info(&self, _request: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        Ok(Response::new(api::InfoResponse { buildkit_version: Some(version::record()) }))
    }

    async fn disk_usage(
        &self,
        request: Request<api::DiskUsageRequest>,
    ) -> Result<Response<api::DiskUsageResponse>, Status> {
        let request = request.into_inner();
        let records =
            self.builder.disk_usage(filters("diskusage", &request.filter)?, request.age_limit).await?;
        Ok(Response::new(api::DiskUsageResponse { record: records.into_iter().map(usage_message).collect() }))
    }

    type PruneStream = Stream<api::UsageRecord>;

    async fn prune(
        &self,
        request: Request<api::PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let request = request.into_inner();
        let amount = |v: i64| u64::try_from(v).unwrap_or(0);
        let pruned = self
            .builder
            .prune(vec![PruneOptions {
                filters: filters("prune", &request.filter)?,
                all: request.all,
                keep_duration: std::time::Duration::from_nanos(amount(request.keep_duration)),
                reserved_space: amount(request.reserved_space),
                max_used_space: amount(request.max_used_space),
                min_free_space: amount(request.min_free_space),
            }])
            .await?;
        Ok(Response::new(futures::stream::iter(pruned.into_iter().map(|r| Ok(usage_message(r)))).boxed()))
    }

    type ListenBuildHistoryStream = Stream<api::BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<api::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let request = request.into_inner();
        self.history.settled(Some(request.r#ref.as_str()).filter(|key| !key.is_empty())).await;
        let events = self.history.follow(request, self.stop.clone()).map_err(|e| match e {
            HistoryError::Request(why) => Status::invalid_argument(why),
            other => Status::internal(other.to_string()),
        })?;
        let events = events.map(|event| event.map_err(|e| Status::internal(e.to_string())));
        Ok(at_our_time(events.boxed()))
    }

    async fn update_build_history(
        &self,
        request: Request<api::UpdateBuildHistoryRequest>,
    ) -> Result<Response<api::UpdateBuildHistoryResponse>, Status> {
        let request = request.into_inner();
        let failed = |e: HistoryError| Status::not_found(e.to_string());
        // To finalize means to wait for what is written after the answer: logs, provenance, the trace.
        self.history.settled(Some(&request.r#ref)).await;
        if request.delete {
            self.history.delete(&request.r#ref).map_err(failed)?;
        } else if !request.finalize {
            self.history.pin(&request.r#ref, request.pinned).map_err(failed)?;
        }
        Ok(Response::new(api::UpdateBuildHistoryResponse {}))
    }
}

/// A stream of moments, with what time it is here: the clocks of clients may differ.
fn at_our_time<T>(stream: T) -> Response<T> {
    let mut response = Response::new(stream);
    if let Ok(now) = crosskit_images::gojson::time(SystemTime::now()).parse() {
        response.metadata_mut().insert(TIMESTAMP, now);
    }
    response
}

/// The filters of a request; `what` they are for is told if they are none.
fn filters(what: &str, given: &[String]) -> Result<Filters, Status> {
    let refused = |why| {
        Status::unknown(format!(
            "failed to parse {what} filters [{}]: {why}: invalid argument",
            given.join(" ")
        ))
    };
    Filters::parse(given).map_err(refused)
}

/// The fields of a worker that filters know.
struct WorkerFields<'a>(&'a types::WorkerRecord);

impl crosskit_snapshots::filters::Fields for WorkerFields<'_> {
    fn field(&self, path: &[String]) -> Option<String> {
        match path {
            [only] if only == "id" => Some(self.0.id.clone()),
            [first, rest @ ..] if first == "labels" => self.0.labels.get(&rest.join(".")).cloned(),
            _ => None,
        }
    }
}

fn usage_message(record: Usage) -> api::UsageRecord {
    let parent = match record.parents.as_slice() {
        [only] => only.clone(),
        _ => String::new(),
    };
    #[allow(deprecated)]
    api::UsageRecord {
        id: record.id,
        mutable: record.mutable,
        in_use: record.in_use,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        parent,
        parents: record.parents,
        created_at: Some(record.created.into()),
        last_used_at: record.last_used.map(Into::into),
        usage_count: i64::from(record.usage_count),
        description: record.description,
        record_type: record.record_type.name().to_string(),
        shared: record.shared,
    }
}
