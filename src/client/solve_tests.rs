//! Builds against a daemon that is made for the test, over a pipe.

use super::*;
use crate::channel_over;
use crate::lending;
use crate::progress::{Mode, Progress, Target};
use crosskit_api::control::control_server::{Control, ControlServer};
use crosskit_api::control::*;
use crosskit_api::details;
use crosskit_api::errors::ErrorDetails;
use crosskit_api::pb;
use crosskit_session::SessionManager;
use futures::stream::BoxStream;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Streaming, async_trait};

/// What the daemon does with a build.
#[derive(Clone)]
enum Behaviour {
    Succeed,
    Fail(Status),
    /// Says that it works, until it is told to stop, and then says that.
    Hang {
        begun: Arc<Notify>,
        dropped: Arc<Notify>,
    },
}

struct Daemon {
    behaviour: Behaviour,
    sessions: SessionManager,
    seen: Arc<Mutex<Option<SolveRequest>>>,
    over: CancellationToken,
}

/// Tells that a call was dropped.
struct OnDrop(Arc<Notify>, CancellationToken);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
        self.1.cancel();
    }
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[async_trait]
impl Control for Daemon {
    type StatusStream = Stream<StatusResponse>;
    type SessionStream = Stream<BytesMessage>;
    type PruneStream = Stream<UsageRecord>;
    type ListenBuildHistoryStream = Stream<BuildHistoryEvent>;

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let request = request.into_inner();
        let session = self.sessions.get(&request.session, Duration::from_secs(5)).await;
        let session = session.map_err(|e| Status::not_found(e.to_string()))?;
        assert_eq!(session.shared_key(), "key");
        *self.seen.lock().unwrap() = Some(request);
        match &self.behaviour {
            Behaviour::Succeed => {
                self.over.cancel();
                let exporter_response = [("containerimage.digest".to_owned(), "sha256:1".to_owned())].into();
                Ok(Response::new(SolveResponse { exporter_response }))
            }
            Behaviour::Fail(status) => {
                self.over.cancel();
                Err(status.clone())
            }
            Behaviour::Hang { begun, dropped } => {
                begun.notify_one();
                let _told = OnDrop(dropped.clone(), self.over.clone());
                std::future::pending().await
            }
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let over = self.over.clone();
        let report = StatusResponse {
            vertexes: vec![Vertex { digest: "v".into(), name: "[1/1] RUN x".into(), ..Default::default() }],
            warnings: vec![VertexWarning {
                vertex: "v".into(),
                short: b"careful".to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let first = futures::stream::once(async { Ok(report) });
        let end = futures::stream::unfold(over, |over| async move {
            over.cancelled().await;
            None
        });
        Ok(Response::new(Box::pin(futures::StreamExt::chain(first, end))))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        Ok(Response::new(Box::pin(self.sessions.open(&headers, request.into_inner()))))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// Builds on such a daemon; returns what it was asked for as well.
async fn build(
    behaviour: Behaviour,
    cancel: CancellationToken,
) -> (Result<Outcome, ClientError>, Option<SolveRequest>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let seen = Arc::new(Mutex::new(None));
    let daemon = Daemon {
        behaviour,
        sessions: SessionManager::new(),
        seen: seen.clone(),
        over: CancellationToken::new(),
    };
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(ControlServer::new(daemon))
            .serve_with_incoming(futures::stream::iter([Ok::<_, std::io::Error>(theirs)])),
    );
    let channel = channel_over(ours).await.unwrap();
    let mut plan = Plan::new();
    plan.frontend = "dockerfile.v0".into();
    plan.shared_key = "key".into();
    plan.options.insert("target".into(), "t".into());
    let lent = lending::lend(&mut plan).await.unwrap();
    let progress = Progress::start(Mode::Quiet, Target::Stderr, "Building", None).unwrap();
    let outcome = solve(&channel, &plan, lent, progress.reporter(), None, cancel).await;
    progress.finish().await;
    serving.abort();
    let seen = seen.lock().unwrap().take();
    (outcome, seen)
}

#[tokio::test]
async fn a_build_succeeds() {
    let (outcome, request) = build(Behaviour::Succeed, CancellationToken::new()).await;
    let outcome = outcome.unwrap();
    assert_eq!(outcome.response.exporter_response["containerimage.digest"], "sha256:1");
    assert_eq!(outcome.seen.warnings, ["careful"]);
    let request = request.unwrap();
    assert_eq!(
        (request.frontend.as_str(), request.frontend_attrs["target"].as_str()),
        ("dockerfile.v0", "t")
    );
    assert_eq!(request.r#ref.len(), 25);
}

#[tokio::test]
async fn a_failure_brings_its_details_along() {
    // More than a usual frame of headers: source files travel in them.
    let source = details::Source {
        info: Some(pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: vec![b'\n'; 200_000],
            ..Default::default()
        }),
        ranges: vec![pb::Range { start: Some(pb::Position { line: 3, character: 0 }), end: None }],
    };
    let details =
        ErrorDetails { vertex: Some("sha256:v".into()), sources: vec![source], ..Default::default() };
    let (outcome, _) =
        build(Behaviour::Fail(details.to_status(Code::Unknown, "exit code: 7")), CancellationToken::new())
            .await;
    let Err(error) = outcome else { panic!("it failed") };
    assert_eq!(error.to_string(), "failed to solve: exit code: 7");
    assert_eq!(error.details(), details);
}

#[tokio::test]
async fn an_interrupt_reaches_the_daemon() {
    let (begun, dropped, cancel) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
    let behaviour = Behaviour::Hang { begun: begun.clone(), dropped: dropped.clone() };
    let building = tokio::spawn(build(behaviour, cancel.clone()));
    begun.notified().await;
    cancel.cancel();
    dropped.notified().await;
    let (outcome, _) = building.await.unwrap();
    let Err(error) = outcome else { panic!("it was canceled") };
    assert_eq!(error.to_string(), "failed to solve: Canceled: context canceled");
    assert_eq!(error.kind(), crate::ErrorKind::Canceled);
}
