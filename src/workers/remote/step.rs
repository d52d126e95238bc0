//! One step on a worker elsewhere, from its inputs to its results.

use super::definition::{StepDefinition, StepOutput};
use super::inputs::InputImage;
use super::results::{self, NoResult};
use super::session::RemoteSession;
use super::solve::{Solved, Solving};
use super::{RemoteError, RemoteWorker};
use crate::workers::platform_of;
use crate::{LocalParts, ResultRef};
use crosskit_api::pb::{self, op::Op as Kind};
use crosskit_llb::Vertex;
use crosskit_snapshots::About;
use crosskit_solver::{ErrorKind, OpContext, OpError};
use futures::future::{join_all, try_join_all};
use std::sync::Arc;

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
        let lent = inputs.iter().map(|input| async {
            match input {
                Some(input) => session.lend(input, &platform).await.map(Some),
                None => Ok(None),
            }
        });
        let images = try_join_all(lent).await?;
        let manifests: Vec<_> = images.iter().map(|i| i.as_ref().map(|i| i.manifest)).collect();
        let step = StepDefinition::new(vertex, &platform, &manifests)
            .ok_or_else(|| internal("a step without a process"))?;
        let work = self.solve(cx, &session, &step);
        let solved = tokio::select! {
            biased;
            solved = work => solved?,
            () = session.closed() => return Err(self.fault("it has closed the session")),
            why = self.down() => {
                // A connection that was silent may stay so after the worker is back.
                session.abandon();
                return Err(self.fault(why));
            }
        };
        let about = About::new(format!("mount / from exec {}", args(exec)));
        let written = Written { worker: self, session: &session, images: &images, parts };
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
    ) -> Result<Vec<std::collections::BTreeMap<String, String>>, RemoteError> {
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
        let solved: Vec<Solved> = match runs.len() {
            1 => vec![runs.remove(0).await],
            _ => join_all(runs).await,
        };
        followed.ended().await;
        solved
            .into_iter()
            .map(|solved| {
                solved.map_err(|status| match (session.line.broken(&status), session.lent.take_failure()) {
                    (Some(why), _) => self.fault(why),
                    (None, Some(own)) => RemoteError::Step(own),
                    (None, None) => RemoteError::of_call(self.name(), &status, &followed.printed.end()),
                })
            })
            .collect()
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
        response: &std::collections::BTreeMap<String, String>,
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
