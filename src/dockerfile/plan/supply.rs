//! What stages start from: what has to be fetched, and taking it over.

use std::sync::Arc;

use crosskit_llb::{
    Builder, Constraints, GitSource, Graph, HttpSource, ImageSource, LocalSource, OciLayoutSource, Output,
};
use crosskit_platforms::Platform;

use crate::bridge::{ImageQuery, ResolvedImage};
use crate::contexts::{self, NamedContext};
use crate::error::{DockerfileError, Result};
use crate::image::Image;
use crate::lint::rules;
use crate::plan::env::split_pair;
use crate::plan::names::{describe, to_pb};
use crate::plan::{Plan, SCRATCH};
use crate::reference::Reference;

/// What a stage waits for.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) stage: usize,
    pub(crate) kind: LoadKind,
}

/// What it is.
#[derive(Debug, Clone)]
pub(crate) enum LoadKind {
    /// The configuration of an image.
    Image(ImageQuery),
    /// A context of the request.
    Context {
        named: NamedContext,
        platform: Option<Platform>,
        /// Whether it takes the place of the whole stage rather than of its base.
        whole_stage: bool,
    },
}

/// What came.
#[derive(Debug, Clone)]
pub(crate) enum Loaded {
    Image(Arc<Resolved>),
    Context { source: Box<ContextSource>, image: Option<Box<Image>> },
}

/// What a name stands for, read once for all that want to know.
#[derive(Debug, Clone)]
pub(crate) enum Resolved {
    Image {
        reference: String,
        digest: String,
        /// As it is.
        image: Arc<Image>,
        /// Without the time it was made, which says nothing about what is made from it.
        timeless: Arc<Image>,
    },
    /// No image: a source.
    Other(String),
}

impl Resolved {
    pub(crate) fn read(answer: ResolvedImage) -> Result<Resolved> {
        Ok(match answer {
            ResolvedImage::Other(source) => Resolved::Other(source),
            ResolvedImage::Image { reference, digest, config } => {
                let image = parse_config(&config)?;
                let timeless = Arc::new(Image { created: String::new(), ..image.clone() });
                Resolved::Image { reference, digest, image: Arc::new(image), timeless }
            }
        })
    }
}

/// A context, not yet part of a graph.
#[derive(Debug, Clone)]
pub(crate) enum ContextSource {
    Scratch,
    Image(ImageSource, Constraints),
    Layout(OciLayoutSource, Constraints),
    Local(LocalSource, Constraints),
    Git(GitSource, Constraints),
    Http(HttpSource, Constraints),
    Graph(Arc<Graph>),
}

impl ContextSource {
    /// Makes it part of a graph; none for nothing at all.
    pub(crate) fn output(self, builder: &mut Builder) -> Option<Output> {
        Some(match self {
            ContextSource::Scratch => return None,
            ContextSource::Image(image, constraints) => builder.image(&image, constraints),
            ContextSource::Layout(layout, constraints) => builder.oci_layout(&layout, constraints),
            ContextSource::Local(local, constraints) => builder.local(&local, constraints),
            ContextSource::Git(git, constraints) => builder.git(&git, constraints),
            ContextSource::Http(http, constraints) => builder.http(&http, constraints),
            ContextSource::Graph(graph) => return builder.import(&graph),
        })
    }
}

/// Images that people mean when they misspell a name.
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// What the variants of those names are guessed as.
fn common_names() -> Vec<String> {
    let forms = |name: &str| [name.to_owned(), format!("{name}:latest")];
    COMMON_IMAGES.iter().flat_map(|name| forms(name)).collect()
}

impl Plan {
    /// What is missing. Call again after supplying it, until nothing is.
    pub(crate) fn loads(&mut self) -> Result<Vec<Load>> {
        let mut reachable = vec![self.request.all_stages; self.stages.len()];
        for stage in self.reachable_order() {
            reachable[stage] = true;
        }
        let mut loads = Vec::new();
        let mut failed = None;
        for (position, reachable) in reachable.iter().copied().enumerate() {
            let stage = &mut self.stages[position];
            if stage.base.is_some() || stage.dispatched || stage.resolved {
                continue;
            }
            stage.resolved = reachable;
            if stage.base_name == SCRATCH && stage.named.is_none() {
                stage.image = Arc::new(Image::empty(&self.target_platform));
                stage.platform = Some(self.target_platform.clone());
                stage.dispatched = stage.unregistered;
                continue;
            }
            let lines = stage.lines;
            match self.base_load(position, reachable) {
                Ok(kind) => loads.extend(kind.map(|kind| Load { stage: position, kind })),
                // Of several names that are none, the last is told.
                Err(error) => failed = Some(error.at(lines)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if !loads.is_empty() {
            return Ok(loads);
        }
        let mut again = false;
        for stage in self.reachable_order() {
            self.inherit(stage);
            again |= self.take_triggers(stage)?;
        }
        if again { self.loads() } else { Ok(loads) }
    }

    fn base_load(&mut self, position: usize, reachable: bool) -> Result<Option<LoadKind>> {
        let base_name = self.stages[position].base_name.clone();
        let reference = Reference::parse(&base_name).map_err(|error| {
            let quoted = crate::text::quote::go_quote(&base_name);
            error.while_doing(format!("failed to parse stage name {quoted}"))
        })?;
        if !reachable {
            return Ok(None);
        }
        let reference = reference.or_latest();
        let stage = &self.stages[position];
        if let Some(named) = stage.named.clone() {
            let platform = stage.platform.clone().or_else(|| self.request.target_platform.clone());
            return Ok(Some(LoadKind::Context { named, platform, whole_stage: true }));
        }
        let platform = stage.platform.clone().unwrap_or_else(|| self.target_platform.clone());
        let found = contexts::find_reference(&self.request.options, &reference, Some(&platform));
        if let Some(named) = found {
            let platform = Some(platform);
            return Ok(Some(LoadKind::Context { named, platform, whole_stage: false }));
        }
        let options = &self.request.options;
        let prefix = match options.multi_platform {
            true => format!("[{} internal]", platform.format_all()),
            false => "[internal]".to_owned(),
        };
        let reference = reference.to_string();
        Ok(Some(LoadKind::Image(ImageQuery {
            log_name: format!("{prefix} load metadata for {reference}"),
            reference,
            platform: Some(platform),
            resolve_mode: options.resolve_mode.as_str(),
            layout: None,
        })))
    }

    /// Says more about the failure of a load.
    pub(crate) fn load_failed(&self, load: &Load, error: DockerfileError) -> DockerfileError {
        let stage = &self.stages[load.stage];
        let error = match &load.kind {
            LoadKind::Context { .. } => error,
            LoadKind::Image(_) => {
                let common = common_names();
                let options = self.stage_names().chain(common.iter().map(String::as_str));
                error.while_doing(&stage.base_name).suggest(&stage.base_name, options)
            }
        };
        error.at(stage.lines)
    }

    /// Takes what came for a stage.
    pub(crate) fn supply(&mut self, load: &Load, loaded: Loaded) -> Result<()> {
        let lines = self.stages[load.stage].lines;
        let done = match (&load.kind, loaded) {
            (LoadKind::Image(query), Loaded::Image(image)) => self.supply_image(load.stage, query, &image),
            (LoadKind::Context { platform, whole_stage, .. }, Loaded::Context { source, image }) => {
                let image = image.map(|image| *image);
                self.supply_context(load.stage, platform.clone(), *whole_stage, *source, image);
                Ok(())
            }
            _ => Err(DockerfileError::new(crate::error::ErrorKind::Internal, "a load got another's answer")),
        };
        if self.stages[load.stage].unregistered {
            self.stages[load.stage].dispatched = true;
        }
        done.map_err(|error| error.at(lines))
    }

    fn supply_image(&mut self, position: usize, query: &ImageQuery, resolved: &Resolved) -> Result<()> {
        let Resolved::Image { reference, digest, image, timeless } = resolved else {
            let message = format!("{} does not stand for an image", query.reference);
            return Err(DockerfileError::user(message));
        };
        let written = self.stages[position].base_name.clone();
        let mut platform = query.platform.clone().unwrap_or_else(|| self.target_platform.clone());
        if self.stages[position].platform.is_none() && self.implicit_target {
            platform = self.detect_platform(&image.platform, platform);
        }
        let mut name = Reference::parse(reference)
            .map_err(|error| error.while_doing(format!("failed to parse ref {reference:?}")))?;
        if !digest.is_empty() {
            name = name.with_digest(digest);
        }
        let name = name.to_string();
        let no_layers = image.rootfs.diff_ids.as_ref().is_none_or(Vec::is_empty)
            && image.history.iter().all(|entry| entry.empty_layer);
        let mut output = None;
        if !no_layers {
            let title = format!("FROM {name}");
            let title = self.numbered(position, &title, Some(&platform), None);
            let mut constraints = Constraints::on(to_pb(&platform)).named(title);
            describe(&mut constraints, &self.stages[position].code);
            let constraints = self.located(constraints, self.stages[position].lines);
            let resolve_mode = self.request.options.resolve_mode;
            let source = ImageSource { reference: name.clone(), resolve_mode, ..ImageSource::default() };
            output = Some(self.builder.image(&source, constraints));
            let found = &image.platform;
            if (&platform.os, &platform.architecture) != (&found.os, &found.architecture) {
                let expected = platform.normalize().format_all();
                let actual = found.normalize().format_all();
                let message = rules::invalid_base_image_platform(&written, &expected, &actual);
                let lines = self.stages[position].lines;
                self.request.linter.warn(&rules::INVALID_BASE_IMAGE_PLATFORM, lines, message);
            }
        }
        let stage = &mut self.stages[position];
        stage.base_name = name;
        stage.base_image = Some(image.clone());
        stage.image = timeless.clone();
        stage.fs.platform = output.map(|_| platform.normalize());
        stage.fs.output = output;
        stage.platform = Some(platform);
        Ok(())
    }

    /// The platform of an image where none was asked for: its own, if it can be run.
    fn detect_platform(&self, image: &Platform, wanted: Platform) -> Platform {
        let same = |other: &Platform| other.os == image.os && other.architecture == image.architecture;
        match !same(&wanted) && same(&self.build_platform) {
            true => self.build_platform.clone(),
            false => wanted,
        }
    }

    fn supply_context(
        &mut self,
        position: usize,
        platform: Option<Platform>,
        whole_stage: bool,
        source: ContextSource,
        image: Option<Image>,
    ) {
        let used = self.stages[position].used;
        let output = self.add_context(source, used);
        let stage = &mut self.stages[position];
        stage.fs.output = output;
        if let Some(image) = &image {
            for pair in image.config.env.iter().filter(|pair| !pair.starts_with('=') && !pair.is_empty()) {
                let (key, value) = split_pair(pair);
                stage.fs.env.set(key, value);
            }
            let dir = &image.config.working_dir;
            stage.fs.dir =
                if dir.starts_with('/') { dir.clone() } else { crosskit_llb::paths::join(&["/", dir]) };
            if !image.platform.os.is_empty() && !image.platform.architecture.is_empty() {
                stage.fs.platform = Some(image.platform.normalize());
            }
        }
        if whole_stage {
            stage.dispatched = true;
            if let Some(image) = image {
                if !image.platform.os.is_empty() && !image.platform.architecture.is_empty() {
                    stage.platform = Some(image.platform.clone());
                }
                stage.image = Arc::new(Image { created: String::new(), ..image });
            }
            return;
        }
        let platform = platform.unwrap_or_else(|| self.target_platform.clone());
        let image = image.unwrap_or_else(|| Image::empty(&platform));
        stage.base_image = Some(Arc::new(image.clone()));
        stage.image = Arc::new(Image { created: String::new(), ..image });
        stage.fs.platform = Some(platform.normalize());
        stage.platform = Some(platform);
    }

    /// Makes a context part of the graph.
    pub(super) fn add_context(&mut self, source: ContextSource, used: usize) -> Option<Output> {
        let local = match &source {
            ContextSource::Local(local, _) => Some(local.clone()),
            _ => None,
        };
        let output = source.output(&mut self.builder)?;
        self.locals.extend(local.map(|local| (output, local, used)));
        Some(output)
    }
}

/// Reads an image's configuration.
fn parse_config(config: &[u8]) -> Result<Image> {
    serde_json::from_slice(config)
        .map_err(|error| DockerfileError::user(format!("failed to parse image config: {error}")))
}
