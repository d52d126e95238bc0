//! `buildctl build`, and what it shares with the friendly form: running a plan.

use super::{print, print_bytes};
use crate::attrs::{self, about};
use crate::cache_metrics::CacheMetrics;
use crate::caches::{self, Way};
use crate::connection::Target;
use crate::definitions;
use crate::error::ClientError;
use crate::flags::Parsed;
use crate::interrupts;
use crate::lending;
use crate::lent_values;
use crate::metadata_file::{render, write_whole};
use crate::outputs;
use crate::plan::Plan;
use crate::progress::{self, Mode, Progress};
use crate::solve::{self, Outcome};
use crate::source_policy;
use crosskit_api::control::ListWorkersRequest;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use tonic::transport::Channel;

/// Where a build's by-products go.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) metadata: Option<PathBuf>,
    pub(crate) reference: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) cache_metrics: Option<PathBuf>,
}

/// A flag that names a file.
pub(crate) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

/// Reads all that `buildctl build` was told.
pub(crate) fn plan(flags: &Parsed) -> Result<Plan, ClientError> {
    let mut plan = Plan::new();
    plan.registry_tls = lent_values::registry_tls(flags.list("registry-auth-tlscontext"))?;
    lend_values(&mut plan, flags)?;
    plan.entitlements = flags.list("allow").to_vec();
    attrs::check_entitlements(&plan.entitlements)?;
    plan.exports = flags.list("output").iter().map(|o| outputs::parse(o)).collect::<Result<_, _>>()?;
    plan.cache_exports = all_caches(flags.list("export-cache"), Way::Export)?;
    plan.cache_imports = all_caches(flags.list("import-cache"), Way::Import)?;
    if let Some(file) = path(flags.text("source-policy-file")) {
        let json = std::fs::read(&file).map_err(|e| ClientError::open(&file, e))?;
        plan.policy = Some(source_policy::parse(flags.text("source-policy-file"), &json)?);
    }
    plan.proxy_network = flags.on("proxy-network");
    plan.frontend = flags.text("frontend").to_owned();
    plan.options = attrs::options(flags.list("opt")).map_err(about("invalid opt"))?;
    let folders = attrs::pairs(flags.list("local")).map_err(about("invalid local"))?;
    plan.folders = folders.into_iter().map(|(name, path)| (name, path.into())).collect();
    plan.check_folders()?;
    for layout in flags.list("oci-layout") {
        let Some((name, path)) = layout.split_once('=') else {
            return Err(ClientError::invalid(format!(
                "invalid oci-layout: oci-layout option must be 'id=path/to/layout', instead had invalid {layout}"
            )));
        };
        plan.layouts.insert(name.to_owned(), path.into());
    }
    if plan.frontend.is_empty() {
        plan.graph = Some(graph_from_stdin(flags.on("no-cache"), &plan)?);
    } else if flags.on("no-cache") {
        plan.options.insert("no-cache".into(), String::new());
    }
    Ok(plan)
}

/// Secrets and agents, which both forms of the command take in the same way.
pub(crate) fn lend_values(plan: &mut Plan, flags: &Parsed) -> Result<(), ClientError> {
    plan.agents = flags.list("ssh").iter().map(|a| lent_values::agent(a)).collect::<Result<_, _>>()?;
    plan.secrets = flags.list("secret").iter().map(|s| lent_values::secret(s)).collect::<Result<_, _>>()?;
    Ok(())
}

/// Remote caches of one direction.
pub(crate) fn all_caches(
    list: &[String],
    way: Way,
) -> Result<Vec<crosskit_api::control::CacheOptionsEntry>, ClientError> {
    list.iter().map(|c| caches::parse(c, way)).collect()
}

fn graph_from_stdin(no_cache: bool, plan: &Plan) -> Result<crosskit_api::pb::Definition, ClientError> {
    // A terminal or /dev/null: nobody pipes a graph.
    let nobody = rustix::fs::fstat(rustix::stdio::stdin()).is_ok_and(|s| {
        rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::CharacterDevice
    });
    if nobody || io::stdin().is_terminal() {
        return Err(ClientError::invalid("please specify --frontend or pipe LLB definition to stdin"));
    }
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(|e| ClientError::open("standard input", e))?;
    let mut graph = definitions::read(&bytes).map_err(about("failed to parse input"))?;
    if graph.def.is_empty() {
        return Err(ClientError::invalid("empty definition sent to build. Specify --frontend instead?"));
    }
    for name in definitions::local_names(&graph)? {
        if !plan.folders.contains_key(&name) {
            return Err(ClientError::invalid(format!("local directory {name} not enabled")));
        }
    }
    if no_cache {
        definitions::ignore_cache(&mut graph);
    }
    Ok(graph)
}

/// Runs `buildctl build`.
pub(crate) async fn run(flags: &Parsed) -> Result<(), ClientError> {
    let target = Target::from_flags(flags)?;
    let files = Files {
        metadata: path(flags.text("metadata-file")),
        reference: path(flags.text("ref-file")),
        trace: path(flags.text("trace")),
        cache_metrics: path(flags.text("debug-json-cache-metrics")),
    };
    let plan = plan(flags)?;
    let mode = Mode::choose(flags.text("progress"), progress::Target::Stderr)?;
    let channel = target.connect("listing workers for Build: failed to list workers").await?;
    let outcome = execute(&channel, plan, mode, &files).await?;
    print_answer(&outcome)
}

/// Prints what a frontend answered to a question.
pub(crate) fn print_answer(outcome: &Outcome) -> Result<(), ClientError> {
    if let Some(text) = outcome.answer.get("result.txt") {
        return print_bytes(text);
    }
    for (key, value) in outcome.answer.iter().filter(|(key, _)| key.starts_with("result.")) {
        print(&format!("{key}\n{}\n", String::from_utf8_lossy(value)))?;
    }
    Ok(())
}

/// Builds by a plan, shows progress, and writes the by-products.
pub(crate) async fn execute(
    channel: &Channel,
    plan: Plan,
    mode: Mode,
    files: &Files,
) -> Result<Outcome, ClientError> {
    let reference = plan.reference.clone();
    let outcome = execute_shown(channel, plan, mode, files).await;
    if let Some(file) = &files.reference {
        write_whole(file, reference.as_bytes())?;
    }
    let outcome = outcome?;
    if let Some(file) = &files.metadata {
        write_whole(file, render(&outcome.response.exporter_response).as_bytes())?;
    }
    if let (Some(file), Some(metrics)) = (&files.cache_metrics, &outcome.seen.metrics) {
        let text = metrics.render();
        match file.to_str() {
            Some("stdout") => print(&text)?,
            Some("stderr") => eprint!("{text}"),
            _ => write_whole(file, text.as_bytes())?,
        }
    }
    Ok(outcome)
}

async fn execute_shown(
    channel: &Channel,
    mut plan: Plan,
    mode: Mode,
    files: &Files,
) -> Result<Outcome, ClientError> {
    let lent = lending::lend(&mut plan).await?;
    let trace = files.trace.as_deref().map(open_trace).transpose()?;
    let progress = Progress::start(mode, progress::Target::Stderr, "Building", trace)?;
    let metrics = files.cache_metrics.as_ref().map(|_| CacheMetrics::new());
    let reporter = progress.reporter();
    if mode == Mode::Tty {
        // Only the live view tells where platforms run; the build doesn't wait for the answer.
        let (mut control, reporter) = (crate::connection::control(channel), reporter.clone());
        tokio::spawn(async move {
            if let Ok(answer) = control.list_workers(ListWorkersRequest::default()).await {
                reporter.workers(answer.into_inner().record);
            }
        });
    }
    let outcome = solve::solve(channel, &plan, lent, reporter, metrics, interrupts::token()?).await;
    progress.finish().await;
    outcome
}

fn open_trace(path: &Path) -> Result<std::fs::File, ClientError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| ClientError::open(path, e))
}
