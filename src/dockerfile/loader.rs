//! Fetches what a request or a Dockerfile names: the configurations of images, and named contexts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crosskit_llb::{Builder, Constraints, Graph, HttpSource, ImageSource, LocalSource, OciLayoutSource};
use crosskit_platforms::Platform;
use tokio::sync::OnceCell;

use crate::bridge::{Bridge, ImageQuery, LayoutStore};
use crate::contexts::{self, IGNORE_FILE, NamedContext, alone, git_context};
use crate::error::{DockerfileError, Result};
use crate::image::Image;
use crate::options::Options;
use crate::plan::names::to_pb;
use crate::plan::{ContextSource, Loaded, Resolved, SCRATCH};
use crate::reference::Reference;
use crate::text::quote::go_quote;

/// A policy may send a context elsewhere this many times.
const MAX_REDIRECTS: usize = 10;

type Resolutions = Mutex<HashMap<ImageQuery, Arc<OnceCell<Arc<Resolved>>>>>;

/// Fetches for one build.
pub(crate) struct Loader<B: Bridge> {
    bridge: Arc<B>,
    options: Arc<Options>,
    images: Resolutions,
}

/// What a request has under a name as a named context, if it has something: its graph, and the bytes of the image's
/// configuration where it is an image.
pub async fn named_context<B: Bridge>(
    bridge: Arc<B>,
    options: Options,
    name: &str,
) -> Result<Option<(Graph, Option<Vec<u8>>)>> {
    let Some(named) = contexts::find(&options, name, None)? else { return Ok(None) };
    let loader = Loader::new(bridge, Arc::new(options));
    match loader.load_context(&named, None).await? {
        Loaded::Context { source, image } => {
            let mut builder = Builder::new();
            let output = source.output(&mut builder);
            Ok(Some((builder.graph(output)?, image.map(|image| image.to_json()))))
        }
        Loaded::Image(_) => Ok(None),
    }
}

impl<B: Bridge> Loader<B> {
    pub(crate) fn new(bridge: Arc<B>, options: Arc<Options>) -> Self {
        Loader { bridge, options, images: Mutex::default() }
    }

    /// What an image's name stands for; asked once however many stages and platforms want to know.
    pub(crate) async fn resolve(&self, query: ImageQuery) -> Result<Arc<Resolved>> {
        let cell = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            images.entry(query.clone()).or_default().clone()
        };
        let ask = || async {
            let answer = self.bridge.resolve_image(query).await;
            Resolved::read(answer.map_err(|cause| DockerfileError::outside("", cause))?).map(Arc::new)
        };
        cell.get_or_try_init(ask).await.cloned()
    }

    /// Fetches a named context.
    pub(crate) async fn load_context(
        &self,
        named: &NamedContext,
        platform: Option<&Platform>,
    ) -> Result<Loaded> {
        let mut input = named.input.clone();
        for _ in 0..=MAX_REDIRECTS {
            match self.load_input(named, &input, platform).await? {
                Step::Done(loaded) => return Ok(*loaded),
                Step::Redirect(to) => input = to,
            }
        }
        Err(DockerfileError::user(format!(
            "context recursion limit exceeded; this may indicate a cycle in the provided source policies: {input}"
        )))
    }

    async fn load_input(
        &self,
        named: &NamedContext,
        input: &str,
        platform: Option<&Platform>,
    ) -> Result<Step> {
        let key = &named.key;
        let Some((kind, rest)) = input.split_once(':') else {
            return Err(DockerfileError::user(format!("invalid context specifier {input} for {key}")));
        };
        let kind = if kind.starts_with("git@") { "git" } else { kind };
        let bare = rest.strip_prefix("//").unwrap_or(rest);
        let done = |source, image| Ok(Step::done(source, image));
        match kind {
            "docker-image" if bare == SCRATCH => done(ContextSource::Scratch, None),
            "docker-image" => self.load_image_context(named, bare, platform).await,
            "oci-layout" => self.load_layout_context(named, bare, platform).await,
            "git" | "http" | "https" => {
                if let Some((git, constraints)) = git_context(&self.options, input, false)? {
                    return done(ContextSource::Git(git, constraints), None);
                }
                if kind == "git" {
                    return Err(DockerfileError::user(format!("invalid git context {input}")));
                }
                let http = HttpSource {
                    url: input.to_owned(),
                    filename: "context".to_owned(),
                    ..HttpSource::default()
                };
                let constraints = Constraints::default().named(format!("[context {key}] {input}"));
                done(ContextSource::Http(http, constraints), None)
            }
            "local" => {
                let source = self.load_local_context(named, rest).await?;
                done(source, None)
            }
            "input" => self.load_input_context(named, rest).await,
            other => Err(DockerfileError::user(format!("unsupported context source {other} for {key}"))),
        }
    }

    async fn load_image_context(
        &self,
        named: &NamedContext,
        reference: &str,
        platform: Option<&Platform>,
    ) -> Result<Step> {
        let key = &named.key;
        let query = ImageQuery {
            reference: Reference::parse(reference)?.or_latest().to_string(),
            platform: platform.cloned(),
            resolve_mode: self.options.resolve_mode.as_str(),
            log_name: format!("[context {key}] load metadata for {reference}"),
            layout: None,
        };
        match &*self.resolve(query).await? {
            Resolved::Other(source) => {
                let (kind, rest) = source
                    .split_once("://")
                    .ok_or_else(|| DockerfileError::user(format!("could not parse ref: {source}")))?;
                Ok(Step::Redirect(format!("{kind}:{rest}")))
            }
            Resolved::Image { reference: found, timeless, .. } => {
                let image = Image::clone(timeless);
                let platform = platform.unwrap_or(&self.options.environment.build_platform);
                let constraints =
                    Constraints::on(to_pb(platform)).named(format!("[context {key}] {reference}"));
                let reference = Reference::parse(found)?.or_latest().to_string();
                let source = ImageSource { reference, ..ImageSource::default() };
                let source = ContextSource::Image(source, constraints);
                Ok(Step::done(source, Some(image)))
            }
        }
    }

    async fn load_layout_context(
        &self,
        named: &NamedContext,
        text: &str,
        platform: Option<&Platform>,
    ) -> Result<Step> {
        let key = &named.key;
        let quoted = go_quote(text);
        let layout = Reference::parse_full(text)
            .map_err(|error| error.while_doing(format!("could not parse oci-layout reference {quoted}")))?;
        let Some(digest) = &layout.digest else {
            return Err(DockerfileError::user(format!("oci-layout reference {quoted} has no digest")));
        };
        let shown = Reference::parse(&named.name)
            .map_err(|error| {
                let quoted = go_quote(&named.name);
                error.while_doing(format!("could not parse oci-layout reference {quoted}"))
            })?
            .with_digest(digest)
            .to_string();
        let session = self.options.environment.session.clone();
        let query = ImageQuery {
            reference: shown.clone(),
            platform: platform.cloned(),
            resolve_mode: self.options.resolve_mode.as_str(),
            log_name: format!("[context {key}] load metadata for {shown}"),
            layout: Some(LayoutStore { session: session.clone(), store: layout.name.clone() }),
        };
        let resolved = self.resolve(query).await?;
        let Resolved::Image { image, .. } = &*resolved else {
            return Err(DockerfileError::user(format!("oci-layout reference {quoted} is no image")));
        };
        let image = Image::clone(image);
        let platform = platform.unwrap_or(&self.options.environment.build_platform);
        let constraints =
            Constraints::on(to_pb(platform)).named(format!("[context {key}] OCI load from client"));
        let source =
            OciLayoutSource { reference: shown, session, store: layout.name, ..OciLayoutSource::default() };
        let source = ContextSource::Layout(source, constraints);
        Ok(Step::done(source, Some(image)))
    }

    async fn load_local_context(&self, named: &NamedContext, folder: &str) -> Result<ContextSource> {
        let key = &named.key;
        let session = self.options.local_session(folder).to_owned();
        let ignore_file = LocalSource {
            name: folder.to_owned(),
            session: session.clone(),
            follow_paths: vec![IGNORE_FILE.to_owned()],
            shared_key_hint: format!("context:{key}-{IGNORE_FILE}"),
            differ: "none".to_owned(),
            ..LocalSource::default()
        };
        let constraints = Constraints::default().named(format!("[context {key}] load {IGNORE_FILE}"));
        let text = self.read_ignore_file(&ignore_file, constraints, true).await?;
        let local = LocalSource {
            name: folder.to_owned(),
            session,
            exclude_patterns: crosskit_patterns::parse_ignore_file(&text),
            shared_key_hint: format!("context:{key}-{}", named.shared_key),
            ..LocalSource::default()
        };
        let constraints = Constraints::default().named(format!("[context {key}] load from client"));
        Ok(ContextSource::Local(local, constraints))
    }

    /// The text of an ignore file; empty when there is none.
    pub(crate) async fn read_ignore_file(
        &self,
        local: &LocalSource,
        constraints: Constraints,
        evaluate: bool,
    ) -> Result<Vec<u8>> {
        let graph = alone(|builder| builder.local(local, constraints))?;
        let result = self
            .bridge
            .solve(Graph::clone(&graph), evaluate)
            .await
            .map_err(|cause| DockerfileError::outside("", cause))?;
        Ok(self.bridge.read_file(&result, IGNORE_FILE, None).await.unwrap_or_default())
    }

    async fn load_input_context(&self, named: &NamedContext, name: &str) -> Result<Step> {
        let key = &named.key;
        let inputs = self.bridge.inputs().await.map_err(|cause| DockerfileError::outside("", cause))?;
        let Some(graph) = inputs.get(name) else {
            return Err(DockerfileError::user(format!("invalid input {name} for {key}")));
        };
        let mut image = None;
        if let Some(metadata) = self.options.get(&format!("input-metadata:{name}")) {
            image = input_image(metadata).map_err(|error| {
                DockerfileError::user(format!("failed to parse input metadata {metadata}: {error}"))
            })?;
        }
        let source = ContextSource::Graph(Arc::new(graph.clone()));
        Ok(Step::done(source, image))
    }
}

/// The configuration in the metadata of an input: a JSON map of base64 values.
fn input_image(metadata: &str) -> std::result::Result<Option<Image>, String> {
    use base64::Engine as _;
    let map: std::collections::BTreeMap<String, String> =
        serde_json::from_str(metadata).map_err(|error| error.to_string())?;
    let Some(config) = map.get("containerimage.config") else {
        return Ok(None);
    };
    let config =
        base64::engine::general_purpose::STANDARD.decode(config).map_err(|error| error.to_string())?;
    serde_json::from_slice(&config).map_err(|error| error.to_string())
}

/// A context, or where to look for it instead.
enum Step {
    Done(Box<Loaded>),
    Redirect(String),
}

impl Step {
    fn done(source: ContextSource, image: Option<Image>) -> Step {
        Step::Done(Box::new(Loaded::Context { source: Box::new(source), image: image.map(Box::new) }))
    }
}
