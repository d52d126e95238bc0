//! One step on a worker elsewhere, from its inputs to its results.

use super::definition::{StepDefinition, StepOutput};
use super::inputs::InputImage;
use super::results::{self, NoResult};
use super::session::RemoteSession;
use super::solve::{Solved, Solving};
use super::{RemoteError, RemoteWorker};
use crate::workers::platform_of;
use crate::{LocalParts, ResultRef};
use crosskit_api::errors::ErrorDetails;
use crosskit_api::pb::{self, op::Op as Kind};
use crosskit_llb::Vertex;
use crosskit_snapshots::About;
use crosskit_solver::{ErrorKind, OpContext, OpError};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

impl RemoteWorker {
    /// Runs a step there and returns its results, whose blobs are then in our content store.
    /// Dropping the future, or cancelling the context's token, cancels the step at the worker.
    ///
    /// # Errors
    /// See [`RemoteError`]: whether the step is to be tried elsewhere.
    pub async fn run_step(
        &self,
        cx: &OpContext,
        vertex: &Vertex,
        inputs: Vec<ResultRef>,
        parts: &LocalParts,
    ) -> Result<Vec<ResultRef>, RemoteError> {
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(RemoteError::Canceled),
            done = self.attempt(cx, vertex, &inputs, parts) => done,
            why = self.down() => Err(self.fault(why)),
        }
    }

    /// Why a step must not go to this worker though it could run it; none if it may.
    ///
    /// # Errors
    /// A worker that can't be asked what it is.
    pub async fn unfit_for(&self, exec: &pb::ExecOp) -> Result<Option<String>, RemoteError> {
        if exec.secretenv.is_empty() || self.options().allow_secret_env || self.facts().await?.is_crosskit {
            return Ok(None);
        }
        Ok(Some(
            "a daemon that is not crosskit's writes secret environment variables into a file on its disk: \
             set allow-secret-env = true to let it, or mount the secret as a file"
                .to_string(),
        ))
    }

    async fn attempt(
        &self,
        cx: &OpContext,
        vertex: &Vertex,
        inputs: &[ResultRef],
        parts: &LocalParts,
    ) -> Result<Vec<ResultRef>, RemoteError> {
        let internal = |text: &str| RemoteError::Step(OpError::new(ErrorKind::Internal, text));
        let Some(Kind::Exec(exec)) = &vertex.op.op else {
            return Err(internal("only steps that run a process go to workers elsewhere"));
        };
        if let Some(why) = self.unfit_for(exec).await? {
            return Err(self.fault(why));
        }
        let session = self.session(cx, parts).await?;
        let _asking = session.clients.of_step(&cx.jobs);
        let platform = platform_of(vertex);
        let (boundary, step, solved) = {
            let attempt = async |pull: bool| {
                let boundary = self.boundary(&session, vertex, &platform, inputs, parts, pull).await?;
                let step = StepDefinition::new(vertex, &platform, &boundary.sources)
                    .ok_or_else(|| internal("a step without a process"))?;
                let solved = self.solve(cx, &session, &step).await?;
                Ok::<_, Failed>((boundary, step, solved))
            };
            match attempt(true).await {
                Err(Failed::Pull { image, why }) => {
                    tracing::info!(worker = self.name(), image, why, "sending an image that it cannot pull");
                    self.0.note_out_of_reach(&image);
                    attempt(false).await
                }
                done => done,
            }
            .map_err(|failed| match failed {
                Failed::Pull { why, .. } => self.fault(why),
                Failed::Other(error) => error,
            })?
        };
        let about = About::new(format!("mount / from exec {}", args(exec)));
        let written = Written { worker: self, session: &session, images: &boundary.images, parts };
        let mut results = Vec::with_capacity(step.outputs.len());
        let mut solved = solved.into_iter();
        for output in &step.outputs {
            results.push(match *output {
                StepOutput::Unchanged(input) => input.and_then(|at| inputs.get(at).cloned().flatten()),
                StepOutput::Written(input) => {
                    let response = solved.next().ok_or_else(|| internal("an output was not built"))?;
                    written.result(&response, input, about.clone()).await?
                }
            });
        }
        Ok(results)
    }

    /// Builds all outputs that can be written, at the same time: the worker runs what they have
    /// in common once. What the exporters told, in the order of these outputs.
    async fn solve(
        &self,
        cx: &OpContext,
        session: &RemoteSession,
        step: &StepDefinition,
    ) -> Result<Vec<BTreeMap<String, String>>, Failed> {
        let written =
            |(at, output): (usize, &StepOutput)| matches!(output, StepOutput::Written(_)).then_some(at);
        let wanted: Vec<usize> = step.outputs.iter().enumerate().filter_map(written).collect();
        let mut solving: Vec<Solving<'_>> =
            wanted.iter().map(|output| Solving::new(session, step, *output, true)).collect();
        if solving.is_empty() {
            solving.push(Solving::new(session, step, 0, false));
        }
        let mut followed = solving[0].follow(step, cx.progress.clone());
        let mut runs: Vec<_> = solving.into_iter().map(|solving| Box::pin(solving.run())).collect();
        let run = async {
            match runs.len() {
                1 => vec![runs.remove(0).await],
                _ => join_all(runs).await,
            }
        };
        let solved: Vec<Solved> = tokio::select! {
            biased;
            solved = run => solved,
            () = session.closed() => return Err(self.fault("it has closed the session").into()),
            why = self.down() => {
                // A connection that was silent may stay so after the worker is back.
                session.abandon();
                return Err(self.fault(why).into());
            }
        };
        followed.ended().await;
        let failed = |status| self.failed(&status, session, step, &followed.printed.end());
        solved.into_iter().map(|solved| solved.map_err(failed)).collect()
    }

    /// What the end of a call means.
    fn failed(
        &self,
        status: &Status,
        session: &RemoteSession,
        step: &StepDefinition,
        printed: &[u8],
    ) -> Failed {
        if let Some(why) = session.line.broken(status) {
            return self.fault(why).into();
        }
        if let Some(own) = session.lent.take_failure() {
            return RemoteError::Step(own).into();
        }
        let vertex = ErrorDetails::from_status(status).vertex.unwrap_or_default();
        if let Some(image) = step.pulled_in(&vertex) {
            return Failed::Pull { image: image.to_string(), why: status.message().to_string() };
        }
        RemoteError::of_call(self.name(), status, printed).into()
    }
}

/// Why a step did not end well.
enum Failed {
    /// The worker did not get an image.
    Pull { image: String, why: String },
    /// Anything else.
    Other(RemoteError),
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        Failed::Other(error)
    }
}

/// Where results of outputs that were written are taken from.
struct Written<'a> {
    worker: &'a RemoteWorker,
    session: &'a RemoteSession,
    images: &'a [Option<Arc<InputImage>>],
    parts: &'a LocalParts,
}

impl Written<'_> {
    async fn result(
        &self,
        response: &BTreeMap<String, String>,
        input: Option<usize>,
        about: About,
    ) -> Result<ResultRef, RemoteError> {
        let base = input.and_then(|at| self.images.get(at)).and_then(|image| image.as_deref());
        let taken = results::take(&self.parts.snapshots, &self.session.lent, response, base, about).await;
        taken.map_err(|no| match no {
            NoResult::Worker(why) => self.worker.fault(why),
            NoResult::Own(error) => RemoteError::Step(error),
        })
    }
}

fn args(exec: &pb::ExecOp) -> String {
    exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default()
}
