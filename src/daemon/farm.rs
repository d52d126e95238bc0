//! What people ask of the workers behind this endpoint.

use crosskit_api::farm::farm_server::Farm;
use crosskit_api::farm::{
    ExplainRequest, ExplainResponse, ListRequest, ListResponse, Search, SetDrainingRequest,
    SetDrainingResponse, Step, Verdict, Worker,
};
use crosskit_scheduler::{Outcome, Reason};
use crosskit_workers::Workers;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Answers for the workers.
pub struct Service(pub Workers);

#[tonic::async_trait]
impl Farm for Service {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let workers = self.0.farm().into_iter().map(|known| {
            let view = known.view;
            Worker {
                kind: view.state.kind.name().to_string(),
                state: known.state.to_string(),
                why: known.why.unwrap_or_default(),
                platforms: view.state.platforms.iter().map(|p| p.format()).collect(),
                slots: view.state.slots.unwrap_or(0) as u64,
                running: view.running as u64,
                waiting: view.waiting as u64,
                finished: view.finished,
                failed: view.failed,
                sent: known.sent,
                received: known.received,
                address: known.address.unwrap_or_default(),
                version: known.facts.map(|facts| facts.version).unwrap_or_default(),
                name: view.state.name,
            }
        });
        let searches = self.0.searched().into_iter().map(|searched| Search {
            place: searched.place,
            workers: searched.workers as u64,
            problem: searched.problem.unwrap_or_default(),
        });
        Ok(Response::new(ListResponse { workers: workers.collect(), searches: searches.collect() }))
    }

    async fn set_draining(
        &self,
        request: Request<SetDrainingRequest>,
    ) -> Result<Response<SetDrainingResponse>, Status> {
        let SetDrainingRequest { name, draining } = request.into_inner();
        match self.0.drain(&name, draining).await {
            true => Ok(Response::new(SetDrainingResponse {})),
            false => Err(Status::not_found(format!("there is no worker {name:?}; farm ls names them all"))),
        }
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let build = request.into_inner().r#ref;
        let records = self.0.dispatcher().history(&build).ok_or_else(|| {
            Status::not_found(format!(
                "nobody remembers build {build:?}; debug histories names the last ones"
            ))
        })?;
        let mut steps = Vec::with_capacity(records.len());
        for (record, name) in records {
            let decision = &record.decision;
            let how = self.0.how(&decision.worker, decision.kind, &record.platform).await;
            let others = record.decision.verdicts.iter();
            let others = others.filter(|verdict| !matches!(verdict.reason, Reason::Chosen(_)));
            steps.push(Step {
                platform: record.platform.format(),
                group: record.group as u64,
                worker: record.decision.worker.clone(),
                kind: record.decision.kind.name().to_string(),
                why: record.decision.choice.to_string(),
                waited_ms: milliseconds(record.waited),
                ran_ms: record.ran.map(milliseconds),
                outcome: record.outcome.map_or("", outcome).to_string(),
                others: others
                    .map(|verdict| Verdict {
                        worker: verdict.worker.clone(),
                        why: verdict.reason.to_string(),
                    })
                    .collect(),
                name,
                how,
            });
        }
        Ok(Response::new(ExplainResponse { steps }))
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "finished",
        Outcome::StepFailed => "step-failed",
        Outcome::WorkerFailed => "worker-failed",
        Outcome::Canceled => "canceled",
    }
}
