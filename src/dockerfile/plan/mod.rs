//! From stages to a graph, for one target platform.
//!
//! The plan is made without I/O: [`Plan::loads`] says what has to be fetched, [`Plan::supply`] takes it, and
//! [`Plan::convert`] makes the graph once nothing is missing.

pub(crate) mod convert;
mod copy;
mod dispatch;
mod env;
mod expose;
mod globals;
mod metadata;
pub(crate) mod names;
pub(crate) mod outline;
mod paths;
mod run;
mod signals;
mod stages;
pub(crate) mod supply;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crosskit_api::pb;
use crosskit_llb::{Builder, LocalSource, Output, SourceFile};
use crosskit_patterns::Patterns;
use crosskit_platforms::Platform;

pub(crate) use copy::{http_filename, percent_decoded};
pub(crate) use env::Env;
pub(crate) use globals::Globals;
pub(crate) use outline::Outlined;
pub(crate) use supply::{ContextSource, LoadKind, Loaded, Resolved};

use crate::contexts::NamedContext;
use crate::error::{DockerfileError, Lines};
use crate::image::{History, Image};
use crate::instruction::{ArgDefinition, Dockerfile, Instruction};
use crate::lint::Linter;
use crate::options::Options;
use crate::text::expand::Lexer;

/// The base that is nothing.
pub(crate) const SCRATCH: &str = "scratch";

/// What a plan is made from. All platforms of a build share most of it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) options: Arc<Options>,
    pub(crate) file: Arc<Dockerfile>,
    pub(crate) source: Arc<SourceFile>,
    /// The platform asked for; none for whatever the base image has.
    pub(crate) target_platform: Option<Platform>,
    pub(crate) linter: Linter,
    /// Whether stages that the target does not need are converted as well.
    pub(crate) all_stages: bool,
}

/// A stage under construction.
#[derive(Debug)]
struct Stage {
    /// The base, with variables replaced and, later, in full.
    base_name: String,
    /// The name given; empty when there is none.
    name: String,
    /// The name shown: as given, or `stage-N`; empty when there is no other stage.
    shown: String,
    /// The FROM line.
    code: String,
    lines: Lines,
    /// What the comment above says of it.
    doc: String,
    /// The stage that it starts from.
    base: Option<usize>,
    platform: Option<Platform>,
    named: Option<NamedContext>,
    /// The stages that it copies and mounts from, and where it says so.
    deps: Vec<(usize, Lines)>,
    commands: Vec<Command>,
    fs: Filesystem,
    image: Arc<Image>,
    /// What this stage adds to the history of its base.
    history: Vec<History>,
    base_image: Option<Arc<Image>>,
    /// Which entry of [`Plan::used_paths`] tells what is read of this stage's context.
    used: usize,
    /// What it reads of the main context.
    context_paths: BTreeSet<String>,
    build_args: Vec<ArgDefinition>,
    resolved: bool,
    dispatched: bool,
    /// Whether it stands for an image that a command names.
    unregistered: bool,
    triggers_taken: bool,
    ignore_cache: bool,
    step: usize,
    steps: usize,
    in_trigger: bool,
    workdir_set: bool,
    cmd_at: Option<Lines>,
    entrypoint_at: Option<Lines>,
    healthcheck_at: Option<Lines>,
    scan_context: bool,
    scan_stage: bool,
    outlined: Outlined,
}

/// What processes and files of a stage see.
#[derive(Debug, Clone, Default)]
struct Filesystem {
    output: Option<Output>,
    env: Env,
    dir: String,
    user: String,
    /// Where it is made for; none for what runs anywhere.
    platform: Option<Platform>,
}

/// An instruction with the stages that it reads from.
#[derive(Debug, Clone)]
struct Command {
    instruction: Arc<Instruction>,
    /// For COPY the one stage, for RUN one for each mount.
    sources: Vec<usize>,
    trigger: bool,
}

/// The graph of one platform in the making.
#[derive(Debug)]
pub(crate) struct Plan {
    request: Request,
    build_platform: Platform,
    target_platform: Platform,
    /// Whether no platform was asked for.
    implicit_target: bool,
    globals: Env,
    build_args: BTreeMap<String, String>,
    /// Seconds since 1970 for all times of the image.
    epoch: Option<i64>,
    proxy: Option<pb::ProxyEnv>,
    lexer: Lexer,
    stages: Vec<Stage>,
    by_name: HashMap<String, usize>,
    target: usize,
    used_paths: Vec<BTreeSet<String>>,
    builder: Builder,
    /// Local folders in the place of stages, and whose entry of `used_paths` tells what is read of them.
    locals: Vec<(Output, LocalSource, usize)>,
    /// The main context, filled in when it is known what is read of it.
    context: Option<Output>,
    ignore: Option<Arc<Patterns>>,
    /// Counts ids.
    next_id: usize,
    /// A step that no graph can have.
    refused: Option<DockerfileError>,
    /// Bytes of all texts in which variables were replaced.
    expanded: std::sync::atomic::AtomicUsize,
}
