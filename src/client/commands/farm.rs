//! The workers behind an endpoint: which there are, what they do, and why.

use super::{connect, print, print_formatted, template};
use crate::error::ClientError;
use crate::flags::Parsed;
use crate::sizes::Size;
use crate::tables::{Fill, align};
use crate::values;
use crosskit_api::farm::farm_client::FarmClient;
use crosskit_api::farm::{ExplainRequest, ListRequest, ListResponse, Search, SetDrainingRequest, Step};
use tonic::transport::Channel;

async fn client(flags: &Parsed) -> Result<FarmClient<Channel>, ClientError> {
    Ok(FarmClient::new(connect(flags, "").await?))
}

fn size(bytes: u64) -> String {
    Size(i64::try_from(bytes).unwrap_or(i64::MAX)).to_string()
}

pub(super) async fn list(flags: &Parsed) -> Result<(), ClientError> {
    let template = template(flags)?;
    let answer = client(flags).await?.list(ListRequest {}).await.map_err(|s| ClientError::call("", s))?;
    let ListResponse { workers, searches } = answer.into_inner();
    if let Some(template) = &template {
        return workers.iter().try_for_each(|worker| print_formatted(template, &values::farm_worker(worker)));
    }
    let mut table =
        "NAME\tKIND\tSTATE\tPLATFORMS\tRUNNING\tWAITING\tDONE\tFAILED\tSENT\tRECEIVED\n".to_owned();
    for worker in &workers {
        let running = match worker.slots {
            0 => worker.running.to_string(),
            slots => format!("{}/{slots}", worker.running),
        };
        table.push_str(&format!(
            "{}\t{}\t{}\t{}\t{running}\t{}\t{}\t{}\t{}\t{}\n",
            worker.name,
            worker.kind,
            worker.state,
            worker.platforms.join(","),
            worker.waiting,
            worker.finished,
            worker.failed,
            size(worker.sent),
            size(worker.received),
        ));
    }
    print(&align(&table, Fill::Spaces))?;
    for worker in workers.iter().filter(|worker| !worker.why.is_empty()) {
        print(&format!("{}: {}\n", worker.name, worker.why))?;
    }
    for Search { place, workers, problem } in &searches {
        let problem = if problem.is_empty() { String::new() } else { format!("; {problem}") };
        let s = if *workers == 1 { "" } else { "s" };
        print(&format!("{place}: {workers} worker{s}{problem}\n"))?;
    }
    Ok(())
}

pub(super) async fn set_draining(flags: &Parsed, draining: bool) -> Result<(), ClientError> {
    let name = flags.first("give the name of a worker; farm ls shows them all")?.to_owned();
    let request = SetDrainingRequest { name, draining };
    client(flags).await?.set_draining(request).await.map_err(|s| ClientError::call("", s))?;
    Ok(())
}

pub(super) async fn explain(flags: &Parsed) -> Result<(), ClientError> {
    let r#ref = flags.first("give the reference of a build; debug histories shows the last ones")?.to_owned();
    let answer = client(flags).await?.explain(ExplainRequest { r#ref }).await;
    let steps = answer.map_err(|s| ClientError::call("", s))?.into_inner().steps;
    for step in &steps {
        print(&explained(step))?;
    }
    Ok(())
}

fn explained(step: &Step) -> String {
    let ran = match (step.ran_ms, step.outcome.as_str()) {
        (Some(ran), "finished") => format!("ran {ran} ms"),
        (Some(ran), outcome) => format!("ran {ran} ms, {outcome}"),
        (None, _) => "is running".to_owned(),
    };
    // The worker on this machine is called by its kind.
    let kind = if step.kind == step.worker { "" } else { &step.kind };
    let how = if step.how == step.kind { "" } else { &step.how };
    let of_worker = match (kind, how) {
        ("", "") => String::new(),
        ("", one) | (one, "") => format!(" ({one})"),
        (kind, how) => format!(" ({kind}, {how})"),
    };
    let mut text = format!(
        "{} {}\n  group {} on {}{of_worker}: {}; waited {} ms, {ran}\n",
        step.platform, step.name, step.group, step.worker, step.why, step.waited_ms
    );
    for other in &step.others {
        text.push_str(&format!("  not on {}: {}\n", other.worker, other.why));
    }
    text
}
