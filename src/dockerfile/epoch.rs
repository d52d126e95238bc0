//! `SOURCE_DATE_EPOCH`: the time that files and the image get.

use std::sync::Arc;

use crosskit_api::pb;
use crosskit_llb::{Constraints, Graph, HttpSource};

use crate::bridge::Bridge;
use crate::contexts;
use crate::error::{DockerfileError, Result};
use crate::frontend::Frontend;
use crate::git_url::{self, Parsed};
use crate::instruction::{Kind, Stage};
use crate::plan::{ContextSource, Env, Globals, Loaded, Request, SCRATCH, http_filename};
use crate::text::expand::Lexer;

/// The name of the argument.
const ARG: &str = "SOURCE_DATE_EPOCH";

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(DockerfileError::user(message))
}

impl<B: Bridge> Frontend<B> {
    /// The time that a value stands for: seconds, `context`, a named context, or a stage with one remote ADD.
    pub(crate) async fn resolve_epoch(
        &self,
        value: &str,
        request: &Request,
        globals: &Globals,
    ) -> Result<Option<i64>> {
        if value.is_empty() {
            return Ok(None);
        }
        if let Ok(seconds) = value.parse() {
            return Ok(Some(seconds));
        }
        if value == "context" {
            let name = "[internal] resolve main build context metadata";
            return match &self.context.source {
                Some(graph) => self.graph_time(graph, name).await,
                None => Ok(None),
            };
        }
        if let Some(named) = contexts::find(&self.options, value, None)? {
            let name = format!("[internal] resolve {ARG} named context {value}");
            let Loaded::Context { source, .. } = self.loader.load_context(&named, None).await? else {
                return Ok(None);
            };
            return match single_source(*source)? {
                Some(source) => self.time_of(source, &name).await,
                None => Ok(None),
            };
        }
        let mut stages = request.file.stages.iter();
        let Some(stage) =
            stages.find(|stage| !stage.name.is_empty() && stage.name.eq_ignore_ascii_case(value))
        else {
            return fail(format!("invalid {ARG}: {value}"));
        };
        let source = stage_source(stage, globals, Lexer::new(request.file.escape))
            .map_err(|error| error.at(stage.lines))?;
        let name = format!("[internal] resolve {ARG} source stage {}", stage.name);
        match single_source(source)? {
            Some(source) => self.time_of(source, &name).await,
            None => Ok(None),
        }
    }

    async fn graph_time(&self, graph: &Arc<Graph>, log_name: &str) -> Result<Option<i64>> {
        match single_source(ContextSource::Graph(graph.clone()))? {
            Some(source) => self.time_of(source, log_name).await,
            None => Ok(None),
        }
    }

    async fn time_of(&self, source: pb::SourceOp, log_name: &str) -> Result<Option<i64>> {
        let time = self.bridge.source_time(source, log_name).await;
        time.map_err(|cause| DockerfileError::outside("", cause))
    }
}

/// The one source that a context consists of.
fn single_source(context: ContextSource) -> Result<Option<pb::SourceOp>> {
    let mut builder = crosskit_llb::Builder::new();
    let output = context.output(&mut builder);
    let graph = builder.graph(output)?;
    let mut sources = graph.vertices().iter().filter_map(|vertex| match &vertex.op.op {
        Some(pb::op::Op::Source(source)) => Some(source.clone()),
        _ => None,
    });
    let first = sources.next();
    Ok(first.filter(|_| sources.next().is_none()))
}

/// The address that a stage of nothing but one remote ADD names.
fn stage_source(stage: &Stage, globals: &Globals, lexer: Lexer) -> Result<ContextSource> {
    let mut env: Env = globals.args.clone();
    env.remove(ARG);
    if lexer.expand(&stage.base, &env)?.text != SCRATCH {
        return fail(format!("{ARG} stage must use FROM scratch"));
    }
    let one = || fail(format!("{ARG} stage must contain exactly one remote ADD"));
    let mut found = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Arg(definitions) => {
                for definition in definitions {
                    let value = match (globals.build_args.get(&definition.key), &definition.value) {
                        (Some(value), _) => value.clone(),
                        (None, Some(default)) => lexer.expand(default, &env)?.text,
                        (None, None) => continue,
                    };
                    env.set(&definition.key, &value);
                }
            }
            Kind::Add(_) if found.is_some() => return one(),
            Kind::Add(add) => {
                let ([source], []) = (add.sources.as_slice(), add.contents.as_slice()) else {
                    return fail(format!("{ARG} stage must contain exactly one remote ADD source"));
                };
                let source = lexer.expand(source, &env)?.text;
                let checksum = lexer.expand(&add.checksum, &env)?.text;
                found = Some(remote_source(&source, checksum, add.keep_git_dir)?);
            }
            _ => {
                let keyword = &instruction.keyword;
                return fail(format!(
                    "{ARG} stage does not meet source-only requirements: unsupported {keyword} instruction"
                ));
            }
        }
    }
    found.map_or_else(one, Ok)
}

fn remote_source(source: &str, checksum: String, keep_git_dir: Option<bool>) -> Result<ContextSource> {
    if let Parsed::Git(git) = git_url::parse(source)?
        && !git.like_local_path
    {
        return Ok(ContextSource::Git(git.added(keep_git_dir, &checksum)?, Constraints::default()));
    }
    if git_url::is_http(source) {
        let filename = http_filename(source);
        let http = HttpSource { url: source.to_owned(), checksum, filename, ..HttpSource::default() };
        return Ok(ContextSource::Http(http, Constraints::default()));
    }
    fail(format!("{ARG} stage source must be a single HTTP(S) or Git ADD"))
}
