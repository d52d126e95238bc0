//! A build from its options to its graphs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crosskit_llb::{Builder, Digest, Graph, LocalSource, SourceFile};
use crosskit_patterns::Patterns;
use crosskit_platforms::Platform;
use futures::future::{join_all, try_join_all};
use tokio::sync::OnceCell;

use crate::bridge::{Bridge, SourceWarning};
use crate::contexts::{IGNORE_FILE, MainContext, lower_case_name};
use crate::error::{DockerfileError, ErrorKind, Lines, Result};
use crate::instruction::Dockerfile;
use crate::lint::{LintConfig, Linter, rules};
use crate::loader::Loader;
use crate::options::Options;
use crate::plan::convert::Converted;
use crate::plan::names::internal;
use crate::plan::{Globals, LoadKind, Loaded, Plan, Request};
use crate::text::directives::{Syntax, detect_syntax, directive};
use crate::text::lines;

/// A build whose Dockerfile has been read.
pub struct Frontend<B: Bridge> {
    pub(crate) bridge: Arc<B>,
    pub(crate) options: Arc<Options>,
    pub(crate) context: MainContext,
    pub(crate) source: Arc<SourceFile>,
    /// The vertex that loads the Dockerfile.
    vertex: Option<Digest>,
    /// The ignore file beside the Dockerfile.
    own_ignore: Option<Vec<u8>>,
    ignored: OnceCell<Vec<String>>,
    pub(crate) loader: Loader<B>,
}

/// The graph and image of one platform.
#[derive(Debug)]
pub struct PlatformResult {
    /// The platform as ids of results have it, such as `linux/arm64`.
    pub id: String,
    /// The platform.
    pub platform: Platform,
    /// What makes the root filesystem; empty when that is.
    pub graph: Graph,
    /// The bytes of the image's configuration.
    pub config: Vec<u8>,
    /// The bytes of the base image's configuration.
    pub base_config: Option<Vec<u8>>,
    /// Seconds since 1970 that all times are to be set to.
    pub epoch: Option<i64>,
    /// What else is to be scanned for its packages, by name.
    pub scan_extras: Vec<(String, Graph)>,
    /// Whether scans ignore what is known.
    pub scan_ignores_cache: bool,
}

/// The results of a build.
#[derive(Debug)]
pub struct FrontendResult {
    /// One for each platform, in the order asked for.
    pub platforms: Vec<PlatformResult>,
    /// Whether results are per platform even if there is one.
    pub multi_platform: bool,
}

impl FrontendResult {
    /// What exporters are told: configurations, times and the list of platforms.
    pub fn metadata(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        let key = |name: &str, id: &str| match self.multi_platform {
            true => format!("{name}/{id}"),
            false => name.to_owned(),
        };
        let mut list = Vec::new();
        for result in &self.platforms {
            all.insert(key("containerimage.config", &result.id), result.config.clone());
            if let Some(base) = &result.base_config {
                all.insert(key("containerimage.base.config", &result.id), base.clone());
            }
            if let Some(epoch) = result.epoch {
                all.insert(key("source.date.epoch", &result.id), epoch.to_string().into_bytes());
            }
            list.push(serde_json::json!({"ID": result.id, "Platform": result.platform}));
        }
        let platforms = serde_json::json!({ "Platforms": list });
        all.insert("refs.platforms".to_owned(), platforms.to_string().into_bytes());
        all
    }
}

impl<B: Bridge + 'static> Frontend<B> {
    /// Reads the Dockerfile of a build.
    pub async fn read(bridge: Arc<B>, options: Options) -> Result<Frontend<B>> {
        let options = Arc::new(options);
        let context = MainContext::find(&*bridge, &options).await?;
        let graph = match &context.dockerfile {
            Some(graph) => Graph::clone(graph),
            None => {
                let (local, constraints) = context.dockerfile_source(&options);
                let mut builder = Builder::new();
                let output = builder.local(&local, constraints);
                builder.graph(Some(output))?
            }
        };
        let vertex = graph.head().map(|head| head.vertex);
        let definition = graph.to_definition();
        let outside = |doing: &'static str| move |cause| DockerfileError::outside(doing, cause);
        let result = bridge.solve(graph, false).await.map_err(outside("failed to resolve dockerfile"))?;
        let name = context.filename.clone();
        let data = match bridge.read_file(&result, &name, None).await {
            Ok(data) => data,
            Err(cause) => {
                let failed = || DockerfileError::outside("failed to read dockerfile", cause);
                let Some(lower) = lower_case_name(&name) else {
                    return Err(failed());
                };
                bridge.read_file(&result, &lower, None).await.map_err(|_| failed())?
            }
        };
        let own_ignore = bridge.read_file(&result, &format!("{name}{IGNORE_FILE}"), None).await.ok();
        let source = Arc::new(SourceFile {
            filename: name,
            language: "Dockerfile".to_owned(),
            data,
            definition: Some(definition),
        });
        let loader = Loader::new(bridge.clone(), options.clone());
        let ignored = OnceCell::new();
        Ok(Frontend { bridge, options, context, source, vertex, own_ignore, ignored, loader })
    }

    /// The Dockerfile.
    pub fn source(&self) -> &Arc<SourceFile> {
        &self.source
    }

    /// The other frontend that is to build this: by the build argument `BUILDKIT_SYNTAX`, which has no lines, or by the
    /// file itself. None as well when the request comes from such a frontend already.
    pub fn forward(&self) -> Option<Syntax> {
        if self.options.get("cmdline").is_some() {
            return None;
        }
        let Some(cmdline) = self.options.get("build-arg:BUILDKIT_SYNTAX") else {
            return detect_syntax(&self.source.data);
        };
        let reference = cmdline.trim().split(' ').next().unwrap_or_default().to_owned();
        Some(Syntax { reference, cmdline: cmdline.to_owned(), lines: Lines::default() })
    }

    /// The rules that hold for the file.
    pub(crate) fn linter(&self) -> Result<Linter> {
        let config = match &self.options.lint {
            Some(config) => config.clone(),
            None => {
                let own = directive("check", &self.source.data).map(|own| own.reference).unwrap_or_default();
                LintConfig::parse(&own).map_err(|error| error.while_doing("failed to parse check options"))?
            }
        };
        Ok(Linter::new(config))
    }

    /// Reads the file into stages.
    pub(crate) fn parse(&self, linter: &Linter) -> Result<Dockerfile> {
        if self.source.data.is_empty() {
            return Err(DockerfileError::user("the Dockerfile cannot be empty"));
        }
        let file = self.parse_stages(linter)?;
        if file.stages.is_empty() {
            return Err(DockerfileError::user("dockerfile contains no stages to build"));
        }
        Ok(file)
    }

    /// The same for a file that may have no stage.
    pub(crate) fn parse_stages(&self, linter: &Linter) -> Result<Dockerfile> {
        let text = lines::read(&self.source.data)?;
        for gap in &text.empty_continuations {
            linter.warn(&rules::NO_EMPTY_CONTINUATION, *gap, rules::no_empty_continuation());
        }
        crate::instruction::parse::dockerfile(text, linter)
    }

    /// Hands what the linter found to the client.
    pub(crate) fn report(&self, linter: &Linter) {
        for warning in linter.take() {
            self.bridge.warn(SourceWarning { vertex: self.vertex, warning, file: self.source.clone() });
        }
    }

    /// Makes the graphs of all platforms.
    pub async fn build(&self) -> Result<FrontendResult> {
        let linter = self.linter()?;
        let built = async { try_join_all(self.each_platform(&linter)?).await }.await;
        self.report(&linter);
        let platforms = built.map_err(|error: DockerfileError| error.in_file(&self.source))?;
        Ok(FrontendResult { platforms, multi_platform: self.options.multi_platform })
    }

    /// Makes the graphs of all platforms for which that can be done, and tells why the others failed.
    pub async fn build_what_can_be(&self) -> Result<(FrontendResult, Vec<(String, DockerfileError)>)> {
        let linter = self.linter()?;
        let each = match self.each_platform(&linter) {
            Ok(each) => join_all(each).await,
            Err(error) => {
                self.report(&linter);
                return Err(error.in_file(&self.source));
            }
        };
        self.report(&linter);
        let (mut platforms, mut failed) = (Vec::new(), Vec::new());
        for (position, built) in each.into_iter().enumerate() {
            match (built, self.options.platforms.get(position)) {
                (Ok(platform), _) => platforms.push(platform),
                (Err(error), Some(asked)) => failed.push((asked.format_all(), error.in_file(&self.source))),
                (Err(error), None) => return Err(error.in_file(&self.source)),
            }
        }
        Ok((FrontendResult { platforms, multi_platform: self.options.multi_platform }, failed))
    }

    fn each_platform(
        &self,
        linter: &Linter,
    ) -> Result<impl Iterator<Item = impl Future<Output = Result<PlatformResult>>>> {
        let file = Arc::new(self.parse(linter)?);
        let platforms: Vec<Option<Platform>> = match self.options.platforms.as_slice() {
            [] => vec![None],
            platforms => platforms.iter().cloned().map(Some).collect(),
        };
        let linter = linter.clone();
        Ok(platforms.into_iter().enumerate().map(move |(position, platform)| {
            // One platform speaks for all.
            let linter = if position == 0 { linter.clone() } else { Linter::silent() };
            self.build_platform(file.clone(), platform, linter)
        }))
    }

    pub(crate) fn request(
        &self,
        file: Arc<Dockerfile>,
        target_platform: Option<Platform>,
        linter: Linter,
        all_stages: bool,
    ) -> Request {
        let (options, source) = (self.options.clone(), self.source.clone());
        Request { options, file, source, target_platform, linter, all_stages }
    }

    async fn build_platform(
        &self,
        file: Arc<Dockerfile>,
        target: Option<Platform>,
        linter: Linter,
    ) -> Result<PlatformResult> {
        let request = self.request(file, target.clone(), linter, false);
        let ((), mut converted) = self.convert(request, |_| ()).await?;
        if let Some(error) = converted.refused.take() {
            return Err(error);
        }
        let platform = target.unwrap_or_else(crosskit_platforms::native).normalize();
        Ok(result(platform, converted))
    }

    /// Plans, fetches what the plan needs, and converts. `look` sees the plan in the end.
    pub(crate) async fn convert<T: Send + 'static>(
        &self,
        request: Request,
        look: impl FnOnce(&Plan) -> T + Send + 'static,
    ) -> Result<(T, Converted)> {
        let mut globals = Globals::new(&request)?;
        if let Some(value) = globals.epoch_value().map(str::to_owned) {
            let epoch = self.resolve_epoch(&value, &request, &globals).await?;
            globals.set_epoch(epoch);
        }
        let planned = move || {
            let mut plan = Plan::new(request, globals)?;
            let loads = plan.loads()?;
            Ok((plan, loads))
        };
        let (mut plan, mut loads) = blocking(planned).await?;
        while !loads.is_empty() {
            let fetched = loads.iter().map(|load| async {
                let loaded = match &load.kind {
                    LoadKind::Image(query) => self.loader.resolve(query.clone()).await.map(Loaded::Image),
                    LoadKind::Context { named, platform, .. } => {
                        self.loader.load_context(named, platform.as_ref()).await
                    }
                };
                loaded.map_err(|error| plan.load_failed(load, error))
            });
            let fetched = try_join_all(fetched).await?;
            let supplied = move || {
                for (load, loaded) in loads.iter().zip(fetched) {
                    plan.supply(load, loaded)?;
                }
                let more = plan.loads()?;
                Ok((plan, more))
            };
            (plan, loads) = blocking(supplied).await?;
        }
        let ignored = self.ignored().await?;
        let patterns = match ignored {
            [] => None,
            patterns => Some(Arc::new(
                Patterns::new(patterns).map_err(|error| DockerfileError::user(error.to_string()))?,
            )),
        };
        plan.set_ignore(patterns);
        let context = self.context.source(&self.options, ignored);
        blocking(move || {
            let converted = plan.convert(context)?;
            Ok((look(&plan), converted))
        })
        .await
    }

    /// The patterns of what the main context leaves out.
    pub(crate) async fn ignored(&self) -> Result<&[String]> {
        if self.context.remote.is_some() {
            return Ok(&[]);
        }
        let read = || async {
            let text = match &self.own_ignore {
                Some(text) => text.clone(),
                None => {
                    let folder = &self.context.local_name;
                    let local = LocalSource {
                        name: folder.clone(),
                        session: self.options.local_session(folder).to_owned(),
                        follow_paths: vec![IGNORE_FILE.to_owned()],
                        shared_key_hint: format!("{folder}-{IGNORE_FILE}"),
                        differ: "none".to_owned(),
                        ..LocalSource::default()
                    };
                    self.loader
                        .read_ignore_file(&local, internal(&format!("load {IGNORE_FILE}")), false)
                        .await?
                }
            };
            Ok::<_, DockerfileError>(crosskit_patterns::parse_ignore_file(&text))
        };
        Ok(self.ignored.get_or_try_init(read).await?)
    }
}

/// Runs work of the processor off the threads that serve connections.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            Err(DockerfileError::new(ErrorKind::Internal, format!("planning the build failed: {error}")))
        }
    }
}

fn result(platform: Platform, converted: Converted) -> PlatformResult {
    let Converted { graph, image, base_image, epoch, scan, .. } = converted;
    let id = platform.format_all();
    let mut platform = platform;
    if platform.os == "windows" && image.platform.os == platform.os {
        if platform.os_version.is_empty() {
            platform.os_version.clone_from(&image.platform.os_version);
        }
        if platform.os_features.is_empty() {
            platform.os_features.clone_from(&image.platform.os_features);
        }
    }
    PlatformResult {
        id,
        platform,
        graph,
        config: image.to_json(),
        base_config: base_image.map(|image| image.to_json()),
        epoch,
        scan_extras: scan.extras,
        scan_ignores_cache: scan.ignore_cache,
    }
}
