//! One build: the session, the request and the progress run side by side.

use crate::cache_metrics::CacheMetrics;
use crate::clock_shift::ClockShift;
use crate::connection::control;
use crate::error::ClientError;
use crate::lending::Lent;
use crate::plan::Plan;
use crate::progress::Reporter;
use crosskit_api::MAX_MESSAGE;
use crosskit_api::control::{SolveRequest, SolveResponse, StatusRequest};
use crosskit_api::frontend::llb_bridge_client::LlbBridgeClient;
use crosskit_api::frontend::{self, ReturnRequest};
use crosskit_api::rpc;
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// How long the last reports of a build may let us wait for each other.
const LAST_REPORTS: Duration = Duration::from_secs(5);
/// Names the build in calls of the gateway (BuildKit `client/buildid`).
const BUILD_ID: &str = "buildkit-controlapi-buildid";
const ACTION: &str = "failed to solve";

/// What a build came to.
pub(crate) struct Outcome {
    pub(crate) response: SolveResponse,
    /// What the frontend answered to a question.
    pub(crate) answer: BTreeMap<String, Vec<u8>>,
    pub(crate) seen: Seen,
}

/// What the reports told that is of use after the build.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) metrics: Option<CacheMetrics>,
    /// The sentences of the frontend's warnings.
    pub(crate) warnings: Vec<String>,
}

/// Ends a task with its owner.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Builds. When `cancel` fires, the daemon is told to stop, and its last reports are still shown.
pub(crate) async fn solve(
    channel: &Channel,
    plan: &Plan,
    lent: Lent,
    reporter: Reporter,
    metrics: Option<CacheMetrics>,
    cancel: CancellationToken,
) -> Result<Outcome, ClientError> {
    let request = plan.request(lent.session.id());
    let mut session_control = control(channel);
    let served =
        lent.session.serve_over(move |request| async move { session_control.session(request).await });
    let mut session = Task(tokio::spawn(served));
    let seen = Seen { metrics, ..Seen::default() };
    let (reports, mut news) = follow(channel.clone(), plan.reference.clone(), reporter, seen);
    let mut reports = Task(reports);

    let solved = tokio::select! {
        solved = ask(channel, request, plan) => solved,
        // Ends early only if the session could not be opened: then the build waits in vain.
        ended = &mut session.0 => match ended {
            Ok(Err(error)) => Err(ClientError::Lending(format!("{ACTION}: {error}"))),
            _ => Err(ClientError::Unreachable { action: ACTION.into(), why: "the daemon closed the session".into() }),
        },
        () = cancel.cancelled() => Err(ClientError::Canceled(ACTION.into())),
    };
    // The daemon ends the stream of reports when the build is over; a silent one is not waited for.
    let reported = loop {
        tokio::select! {
            ended = &mut reports.0 => break ended.ok(),
            () = tokio::time::sleep(LAST_REPORTS) => {
                if !news.has_changed().unwrap_or(false) {
                    break None;
                }
                news.mark_unchanged();
            }
        }
    };
    let (response, answer) = solved?;
    lent.after.finish(&response)?;
    let seen = match reported {
        Some((seen, ended)) => {
            ended?;
            seen
        }
        None => Seen::default(),
    };
    Ok(Outcome { response, answer, seen })
}

type Followed = (Seen, Result<(), ClientError>);

/// Hands the daemon's reports on. The second value changes with each of them.
fn follow(
    channel: Channel,
    reference: String,
    reporter: Reporter,
    mut seen: Seen,
) -> (JoinHandle<Followed>, tokio::sync::watch::Receiver<()>) {
    let (news, changed) = tokio::sync::watch::channel(());
    let task = tokio::spawn(async move {
        let mut shift = ClockShift::new();
        let stream = control(&channel).status(StatusRequest { r#ref: reference }).await;
        let mut stream = match stream {
            Ok(stream) => stream.into_inner(),
            Err(status) => return (seen, Err(ClientError::call("failed to get status", status))),
        };
        loop {
            match stream.message().await {
                Ok(Some(mut status)) => {
                    news.send_replace(());
                    shift.apply(&mut status);
                    if let Some(metrics) = &mut seen.metrics {
                        metrics.update(&status);
                    }
                    seen.warnings.extend(
                        status.warnings.iter().map(|w| String::from_utf8_lossy(&w.short).into_owned()),
                    );
                    reporter.report(status).await;
                }
                Ok(None) => return (seen, Ok(())),
                Err(status) => return (seen, Err(ClientError::call("failed to receive status", status))),
            }
        }
    });
    (task, changed)
}

type Answer = (SolveResponse, BTreeMap<String, Vec<u8>>);

async fn ask(channel: &Channel, request: SolveRequest, plan: &Plan) -> Result<Answer, ClientError> {
    let mut control = control(channel);
    let solving = async {
        let response = control.solve(request).await.map_err(|status| ClientError::call(ACTION, status))?;
        Ok::<_, ClientError>(response.into_inner())
    };
    if !plan.is_question() {
        return Ok((solving.await?, BTreeMap::new()));
    }
    // The question is asked inside of a build that returns its answer.
    let asking = question(channel, plan);
    tokio::pin!(solving, asking);
    tokio::select! {
        response = &mut solving => {
            // The build can't succeed before it got the answer, so this is its failure.
            Ok((response?, asking.await?))
        }
        answer = &mut asking => match answer {
            Ok(answer) => Ok((solving.await?, answer)),
            // The build fails with the same error, and tells more about it.
            Err(error) => match tokio::time::timeout(LAST_REPORTS, solving).await {
                Ok(Err(full)) => Err(full),
                _ => Err(error),
            },
        },
    }
}

/// Asks the frontend through the gateway, and ends the build with what it answered.
async fn question(channel: &Channel, plan: &Plan) -> Result<BTreeMap<String, Vec<u8>>, ClientError> {
    let mut bridge = LlbBridgeClient::new(channel.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let id = plan
        .reference
        .parse()
        .map_err(|_| ClientError::invalid("the build's reference is no header value"))?;
    let request = frontend::SolveRequest {
        frontend: plan.frontend.clone(),
        frontend_opt: plan.frontend_options(),
        definition: plan.graph.clone(),
        allow_result_return: true,
        allow_result_array_ref: true,
        cache_imports: plan
            .cache_imports
            .iter()
            .map(|i| frontend::CacheOptionsEntry { r#type: i.r#type.clone(), attrs: i.attrs.clone() })
            .collect(),
        ..Default::default()
    };
    let mut call = Request::new(request);
    call.metadata_mut().insert(BUILD_ID, tonic::metadata::MetadataValue::clone(&id));
    let solved = bridge.solve(call).await;
    let (result, error) = match &solved {
        Ok(response) => (response.get_ref().result.clone(), None),
        Err(status) => (None, Some(as_message(status))),
    };
    let metadata = result.as_ref().map(|r| r.metadata.clone()).unwrap_or_default();
    let mut call = Request::new(ReturnRequest { result, error });
    call.metadata_mut().insert(BUILD_ID, id);
    let returned = bridge.r#return(call).await;
    solved.map_err(|status| ClientError::call(ACTION, status))?;
    returned.map_err(|status| ClientError::call(ACTION, status))?;
    Ok(metadata)
}

/// A status as it travels inside of messages.
fn as_message(status: &Status) -> rpc::Status {
    let details = rpc::Status::decode(status.details()).map(|s| s.details).unwrap_or_default();
    let code = if status.code() == Code::Ok { Code::Unknown } else { status.code() };
    rpc::Status { code: code.into(), message: status.message().to_owned(), details }
}

#[cfg(test)]
#[path = "solve_tests.rs"]
mod tests;
