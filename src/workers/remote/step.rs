//! One step on a worker elsewhere, from its inputs to its results.

use super::boundary::Boundary;
use super::definition::{StepDefinition, StepOutput};
use super::inputs::InputImage;
use super::made::{Made, MadeOutput};
use super::pulls::PATIENCE;
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
use crosskit_solver::{ErrorKind, Input, OpContext, OpError, Told};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

impl RemoteWorker {
    /// Runs a step there and returns its results, whose blobs are then in our content store. As soon
    /// as it has run, which may be long before, `ran` is called with what [`OpContext::promise`] is
    /// to be told: the step needs no place at the worker any more.
    /// Dropping the future, or cancelling the context's token, cancels the step at the worker.
    ///
    /// # Errors
    /// See [`RemoteError`]: whether the step is to be tried elsewhere.
    pub async fn run_step(
        &self,
        cx: &OpContext,
        vertex: &Vertex,
        inputs: &[Input<ResultRef>],
        parts: &LocalParts,
        ran: &mut (dyn FnMut(Told) + Send),
    ) -> Result<Vec<ResultRef>, RemoteError> {
        let attempt = async {
            let done = tokio::select! {
                biased;
                done = self.attempt(cx, vertex, inputs, parts, ran) => done?,
                why = self.down() => return Err(self.fault(why)),
            };
            // What has come stays, whatever becomes of the worker.
            self.results(&done, vertex, inputs, parts).await
        };
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(RemoteError::Canceled),
            results = attempt => results,
        }
    }

    async fn attempt(
        &self,
        cx: &OpContext,
        vertex: &Vertex,
        inputs: &[Input<ResultRef>],
        parts: &LocalParts,
        ran: &mut (dyn FnMut(Told) + Send),
    ) -> Result<Done, RemoteError> {
        let Some(Kind::Exec(exec)) = &vertex.op.op else {
            return Err(internal("only steps that run a process go to workers elsewhere"));
        };
        if let Some(why) = self.unfit_for(exec).await? {
            return Err(self.fault(why));
        }
        let session = self.session(cx, parts).await?;
        let _asking = session.clients.of_step(&cx.jobs);
        let platform = platform_of(vertex);
        let mut attempt = async |pull: bool| {
            let Boundary { sources, images } =
                self.boundary(&session, vertex, &platform, inputs, parts, pull).await?;
            let step = StepDefinition::new(vertex, &platform, &sources)
                .ok_or_else(|| internal("a step without a process"))?;
            let step = Arc::new(step);
            let told: Told = Arc::new(Made::new(&session, step.clone()));
            let mut told = Some(told);
            let mut ran = || told.take().into_iter().for_each(&mut *ran);
            let (told, ahead) = self.solve(cx, &session, &step, &mut ran).await?;
            Ok::<_, Failed>(Done { session: session.clone(), step, images, told, _ahead: ahead })
        };
        let done = match attempt(true).await {
            Err(Failed::Pull { image, why }) => {
                tracing::info!(worker = self.name(), image, why, "sending an image that it cannot pull");
                self.0.note_out_of_reach(&image);
                attempt(false).await
            }
            done => done,
        };
        done.map_err(|failed| match failed {
            Failed::Pull { why, .. } => self.fault(why),
            Failed::Other(error) => error,
        })
    }

    /// The results of a step whose blobs are here.
    async fn results(
        &self,
        done: &Done,
        vertex: &Vertex,
        inputs: &[Input<ResultRef>],
        parts: &LocalParts,
    ) -> Result<Vec<ResultRef>, RemoteError> {
        let platform = platform_of(vertex);
        let about = match &vertex.op.op {
            Some(Kind::Exec(exec)) => About::new(format!("mount / from exec {}", args(exec))),
            _ => About::default(),
        };
        let given = async |at: usize| match inputs.get(at) {
            Some(input) => input.result().await.map_err(RemoteError::Step),
            None => Ok(None),
        };
        let mut told = done.told.iter();
        let mut results = Vec::with_capacity(done.step.outputs.len());
        for (at, output) in done.step.outputs.iter().enumerate() {
            let written_over = match *output {
                StepOutput::Unchanged(input) => {
                    results.push(match input {
                        Some(input) => given(input).await?,
                        None => None,
                    });
                    continue;
                }
                StepOutput::Written(input) => input,
            };
            let response = told.next().ok_or_else(|| internal("an output was not built"))?;
            let base = match written_over {
                Some(at) => match done.images.get(at).cloned().flatten() {
                    Some(image) => Some(image),
                    // The worker has made it, and now it has to be here.
                    None => match given(at).await? {
                        Some(input) => Some(done.session.lend(&input, &platform).await?),
                        None => None,
                    },
                },
                None => None,
            };
            let result =
                results::take(&parts.snapshots, &done.session.lent, response, base.as_deref(), about.clone())
                    .await
                    .map_err(|no| match no {
                        NoResult::Worker(why) => self.fault(why),
                        NoResult::Own(error) => RemoteError::Step(error),
                    })?;
            if let Some(result) = &result {
                done.session.leave(result, MadeOutput { definition: done.step.clone(), output: at });
            }
            results.push(result);
        }
        Ok(results)
    }

    /// Builds all outputs that can be written, at the same time: the worker runs what they have
    /// in common once. What the exporters told, in the order of these outputs. `ran` is called when
    /// the worker has run the step, unless too many others have run and are not here yet: what is
    /// returned besides is held until this one is.
    async fn solve(
        &self,
        cx: &OpContext,
        session: &RemoteSession,
        step: &StepDefinition,
        ran: &mut (dyn FnMut() + Send),
    ) -> Result<(Vec<BTreeMap<String, String>>, Option<OwnedSemaphorePermit>), Failed> {
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
        let has_run = followed.ran();
        let early = async {
            has_run.await;
            // The semaphore is never closed.
            session.ahead.clone().acquire_owned().await.ok()
        };
        tokio::pin!(run, early);
        let stalled = followed.stalled();
        tokio::pin!(stalled);
        let mut ahead = None;
        let solved: Vec<Solved> = loop {
            tokio::select! {
                biased;
                solved = &mut run => break solved,
                permit = &mut early, if ahead.is_none() => {
                    ahead = permit;
                    ran();
                }
                () = &mut stalled => {
                    let image = step.first_pulled().unwrap_or_default().to_string();
                    let why = format!("it gets no further with it for {PATIENCE:?}");
                    return Err(Failed::Pull { image, why });
                }
                () = session.closed() => return Err(self.fault("it has closed the session").into()),
                why = self.down() => {
                    // A connection that was silent may stay so after the worker is back.
                    session.abandon();
                    return Err(self.fault(why).into());
                }
            }
        };
        followed.ended().await;
        let failed = |status| self.failed(&status, session, step, &followed.printed.end());
        let told = solved.into_iter().map(|solved| solved.map_err(failed)).collect::<Result<_, _>>()?;
        ran();
        Ok((told, ahead))
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
        self.learn_refusal(status.message(), &step.entitlements);
        let vertex = ErrorDetails::from_status(status).vertex.unwrap_or_default();
        if step.has_run(&vertex) {
            let why = format!("it has lost what an earlier step has made: {}", status.message());
            return self.fault(why).into();
        }
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

/// A step that has run at a worker, and whose blobs are here.
struct Done {
    session: Arc<RemoteSession>,
    step: Arc<StepDefinition>,
    images: Vec<Option<Arc<InputImage>>>,
    /// What the exporters told of its written outputs.
    told: Vec<BTreeMap<String, String>>,
    /// Held until its results are here.
    _ahead: Option<OwnedSemaphorePermit>,
}

fn internal(text: &str) -> RemoteError {
    RemoteError::Step(OpError::new(ErrorKind::Internal, text))
}

fn args(exec: &pb::ExecOp) -> String {
    exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default()
}
