//! Records of builds: listing, following, keeping and deleting them, and their logs.

use super::{connect, control, print, print_bytes, print_formatted, template};
use crate::error::ClientError;
use crate::flags::Parsed;
use crate::progress::{Mode, Progress, Target};
use crate::tables::{Fill, align};
use crate::times;
use crate::values;
use crosskit_api::MAX_MESSAGE;
use crosskit_api::content::ReadContentRequest;
use crosskit_api::content::content_client::ContentClient;
use crosskit_api::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, BuildResultInfo,
    Descriptor, StatusRequest, UpdateBuildHistoryRequest,
};
use tonic::Streaming;
use tonic::transport::Channel;

async fn events(
    channel: &Channel,
    request: BuildHistoryRequest,
) -> Result<Streaming<BuildHistoryEvent>, ClientError> {
    Ok(control(channel)
        .listen_build_history(request)
        .await
        .map_err(|s| ClientError::call("", s))?
        .into_inner())
}

async fn next(events: &mut Streaming<BuildHistoryEvent>) -> Result<Option<BuildHistoryEvent>, ClientError> {
    events.message().await.map_err(|s| ClientError::call("", s))
}

fn row(event: &BuildHistoryEvent, with_pin: bool) -> String {
    let none = BuildHistoryRecord::default();
    let record = event.record.as_ref().unwrap_or(&none);
    let time = |at: Option<prost_types::Timestamp>| at.map(|at| times::local(&at)).unwrap_or_default();
    let pin = match (with_pin, record.pinned) {
        (false, _) => "",
        (true, false) => "\t",
        (true, true) => "\t*",
    };
    let (created, completed) = (time(record.created_at), time(record.completed_at));
    format!("{}\t{}\t{created}\t{completed}\t{}{pin}\n", kind(event), record.r#ref, record.generation)
}

fn kind(event: &BuildHistoryEvent) -> &'static str {
    BuildHistoryEventType::try_from(event.r#type).map_or("UNKNOWN", |kind| kind.as_str_name())
}

pub(super) async fn list(flags: &Parsed) -> Result<(), ClientError> {
    let channel = connect(flags, "").await?;
    let template = template(flags)?;
    let mut events = events(&channel, BuildHistoryRequest { early_exit: true, ..Default::default() }).await?;
    let mut heading = "TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\tPINNED\n".to_owned();
    while let Some(event) = next(&mut events).await? {
        match &template {
            Some(template) => print_formatted(template, &values::history(&event))?,
            // Rows are printed as they come, so only the first one lines up with the heading.
            None => print(&align(&(std::mem::take(&mut heading) + &row(&event, true)), Fill::Tabs))?,
        }
    }
    if template.is_none() { print(&align(&heading, Fill::Tabs)) } else { Ok(()) }
}

pub(super) async fn prune(flags: &Parsed) -> Result<(), ClientError> {
    let channel = connect(flags, "").await?;
    let template = template(flags)?;
    let mut events = events(&channel, BuildHistoryRequest { early_exit: true, ..Default::default() }).await?;
    let mut heading = "TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\n".to_owned();
    let mut failed = None;
    while let Some(event) = next(&mut events).await? {
        let Some(record) = event.record.as_ref().filter(|r| !r.pinned) else { continue };
        let request =
            UpdateBuildHistoryRequest { r#ref: record.r#ref.clone(), delete: true, ..Default::default() };
        if let Err(status) = control(&channel).update_build_history(request).await {
            failed.get_or_insert(ClientError::call(
                format!("delete the record of build {}", record.r#ref),
                status,
            ));
            continue;
        }
        match &template {
            Some(template) => print_formatted(template, &values::history(&event))?,
            None => print(&align(&(std::mem::take(&mut heading) + &row(&event, false)), Fill::Tabs))?,
        }
    }
    if template.is_none() {
        print(&align(&heading, Fill::Tabs))?;
    }
    failed.map_or(Ok(()), Err)
}

pub(super) async fn update(flags: &Parsed) -> Result<(), ClientError> {
    let build = flags.first("build ref must be specified")?.to_owned();
    let (pin, unpin, delete) = (flags.on("pin"), flags.on("unpin"), flags.on("delete"));
    match (pin, unpin, delete) {
        (false, false, false) => {
            return Err(ClientError::invalid("must specify one of --pin, --unpin, --delete"));
        }
        (true, true, _) => return Err(ClientError::invalid("cannot specify both --pin and --unpin")),
        (_, _, true) if pin || unpin => {
            return Err(ClientError::invalid("cannot specify --delete with --pin or --unpin"));
        }
        _ => {}
    }
    let channel = connect(flags, "").await?;
    let request = UpdateBuildHistoryRequest { r#ref: build, pinned: pin, delete, finalize: false };
    control(&channel).update_build_history(request).await.map_err(|s| ClientError::call("", s))?;
    Ok(())
}

pub(super) async fn monitor(flags: &Parsed) -> Result<(), ClientError> {
    let channel = connect(flags, "").await?;
    let request = BuildHistoryRequest {
        active_only: !flags.on("completed"),
        r#ref: flags.text("ref").to_owned(),
        ..Default::default()
    };
    let mut events = events(&channel, request).await?;
    while let Some(event) = next(&mut events).await? {
        print(&report(&event))?;
    }
    // The daemon ends such a stream only when it goes away.
    Err(ClientError::invalid("EOF"))
}

/// What happened, with what the build came to.
fn report(event: &BuildHistoryEvent) -> String {
    let none = BuildHistoryRecord::default();
    let record = event.record.as_ref().unwrap_or(&none);
    let mut out = format!("event: {} ref:{}\n", kind(event), record.r#ref);
    if record.num_total_steps != 0 {
        out += &format!("  cache: {}/{}\n", record.num_cached_steps, record.num_total_steps);
    }
    if record.num_warnings != 0 {
        out += &format!("  warnings: {}\n", record.num_warnings);
    }
    for (name, blob) in [("logs", &record.logs), ("trace", &record.trace)] {
        out += &blob.iter().map(|d| format!("  {name}: {}\n", brief(d))).collect::<String>();
    }
    let results = record.result.iter().map(|r| (String::new(), r));
    for (of, result) in results.chain(record.results.iter().map(|(of, r)| (format!("[{of}] "), r))) {
        out += &result_lines(&of, result);
    }
    out
}

fn result_lines(of: &str, result: &BuildResultInfo) -> String {
    let old = result.result_deprecated.iter().filter(|_| result.results.is_empty());
    let results = result.results.values().chain(old).map(|d| format!("  {of}descriptor: {}\n", brief(d)));
    results.chain(result.attestations.iter().map(|d| format!("  {of}attestation: {}\n", brief(d)))).collect()
}

fn brief(d: &Descriptor) -> String {
    let mut out = format!("media_type:{:?} digest:{:?} size:{}", d.media_type, d.digest, d.size);
    for (key, value) in &d.annotations {
        out += &format!(" annotations:{{key:{key:?} value:{value:?}}}");
    }
    out
}

pub(super) async fn logs(flags: &Parsed) -> Result<(), ClientError> {
    let build = flags.first("build ref must be specified")?.to_owned();
    let mode = Mode::choose(flags.text("progress"), Target::Stdout)?;
    let channel = connect(flags, "").await?;
    if flags.on("trace") {
        return trace(&channel, build).await;
    }
    let answer = control(&channel).status(StatusRequest { r#ref: build }).await;
    let mut reports = answer.map_err(|s| ClientError::call("", s))?.into_inner();
    let progress = Progress::start(mode, Target::Stdout, "Building", None)?;
    let reporter = progress.reporter();
    let ended = loop {
        match reports.message().await {
            Ok(Some(status)) => reporter.report(status).await,
            Ok(None) => break Ok(()),
            Err(status) => break Err(ClientError::call("", status)),
        }
    };
    drop(reporter);
    progress.finish().await;
    ended
}

async fn trace(channel: &Channel, build: String) -> Result<(), ClientError> {
    let request = BuildHistoryRequest { r#ref: build.clone(), early_exit: true, ..Default::default() };
    let mut events = events(channel, request).await?;
    let Some(event) = next(&mut events).await? else {
        return Err(ClientError::invalid(format!("ref {build} not found")));
    };
    let Some(trace) = event.record.and_then(|r| r.trace) else {
        return Err(ClientError::invalid(format!("ref {build} does not have trace")));
    };
    let mut content = ContentClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let failed = |status| ClientError::call(format!("read trace {}", trace.digest), status);
    let request = ReadContentRequest { digest: trace.digest.clone(), offset: 0, size: 0 };
    let mut parts = content.read(request).await.map_err(failed)?.into_inner();
    while let Some(part) = parts.message().await.map_err(failed)? {
        print_bytes(&part.data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told() {
        let blob = |n: i64| Descriptor {
            media_type: "m".into(),
            digest: "sha256:1".into(),
            size: n,
            ..Default::default()
        };
        let event = BuildHistoryEvent {
            r#type: BuildHistoryEventType::Complete as i32,
            record: Some(BuildHistoryRecord {
                r#ref: "r1".into(),
                num_total_steps: 5,
                num_cached_steps: 2,
                logs: Some(blob(1)),
                result: Some(BuildResultInfo { results: [(0, blob(2))].into(), ..Default::default() }),
                results: [(
                    "linux/arm64".to_owned(),
                    BuildResultInfo { attestations: vec![blob(3)], ..Default::default() },
                )]
                .into(),
                ..Default::default()
            }),
        };
        assert_eq!(
            report(&event),
            "event: COMPLETE ref:r1\n  cache: 2/5\n  logs: media_type:\"m\" digest:\"sha256:1\" size:1\n  descriptor: media_type:\"m\" digest:\"sha256:1\" size:2\n  [linux/arm64] attestation: media_type:\"m\" digest:\"sha256:1\" size:3\n"
        );
        assert_eq!(row(&event, true), "COMPLETE\tr1\t\t\t0\t\n");
    }
}
