//! Where files come from: the main context, named contexts and what is ignored of them.

use std::sync::Arc;

use crosskit_llb::{
    Builder, Constraints, CopyAction, FileActionSpec, Graph, HttpSource, LocalSource, Output,
};
use crosskit_platforms::Platform;

use crate::bridge::Bridge;
use crate::error::{DockerfileError, Result};
use crate::git_url::{self, Parsed};
use crate::options::Options;
use crate::plan::ContextSource;
use crate::plan::names::internal;
use crate::reference::Reference;
use crate::text::units;

/// The file that names what is ignored.
pub(crate) const IGNORE_FILE: &str = ".dockerignore";

/// A context that the request puts in the place of a stage or image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamedContext {
    pub(crate) name: String,
    /// The name that the request has it under, perhaps with a platform.
    pub(crate) key: String,
    pub(crate) input: String,
    pub(crate) shared_key: String,
}

/// Looks a name up among the contexts of a request.
pub(crate) fn find(
    options: &Options,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Option<NamedContext>> {
    let reference =
        Reference::parse(name).map_err(|error| error.while_doing(format!("invalid context name {name}")))?;
    Ok(find_reference(options, &reference, platform))
}

/// Looks the full name of an image up among the contexts of a request.
pub(crate) fn find_reference(
    options: &Options,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Option<NamedContext> {
    if !options.has_contexts() {
        return None;
    }
    let familiar = reference.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let platform = platform.cloned().unwrap_or_else(crosskit_platforms::native);
    let keys = [format!("{name}::{}", platform.normalize().format_all()), name.to_owned()];
    keys.into_iter().find_map(|key| {
        let input = options.get(&format!("context:{key}"))?.to_owned();
        let shared_key = options.get(&format!("sharedkey:localdir:{key}")).unwrap_or_default().to_owned();
        Some(NamedContext { name: name.to_owned(), key, input, shared_key })
    })
}

/// The main context and where the Dockerfile is.
#[derive(Debug, Clone)]
pub(crate) struct MainContext {
    /// None for a folder of the client.
    pub(crate) remote: Option<Arc<Graph>>,
    /// Where the Dockerfile is, when that is not a folder of the client.
    pub(crate) dockerfile: Option<Arc<Graph>>,
    pub(crate) local_name: String,
    pub(crate) dockerfile_local_name: String,
    pub(crate) filename: String,
    /// The source itself, for its time.
    pub(crate) source: Option<Arc<Graph>>,
}

/// The graph of one source.
pub(crate) fn alone(build: impl FnOnce(&mut Builder) -> Output) -> Result<Arc<Graph>> {
    let mut builder = Builder::new();
    let output = build(&mut builder);
    Ok(Arc::new(builder.graph(Some(output))?))
}

/// A repository that an address names, as a context.
pub(crate) fn git_context(
    options: &Options,
    text: &str,
    main: bool,
) -> Result<Option<(crosskit_llb::GitSource, Constraints)>> {
    let Parsed::Git(git) = git_url::parse(text)? else {
        return Ok(None);
    };
    let flag = |name: &str| options.get(&format!("build-arg:{name}")).unwrap_or_default();
    let keep = main && units::go_bool(flag("BUILDKIT_CONTEXT_KEEP_GIT_DIR")) == Some(true);
    let commit_times = main && !flag("SOURCE_DATE_EPOCH").is_empty();
    Ok(Some((git.context(keep, commit_times), internal(&format!("load git source {text}")))))
}

impl MainContext {
    /// Finds out what the request has.
    pub(crate) async fn find<B: Bridge>(bridge: &B, options: &Options) -> Result<MainContext> {
        let name = |key: &str, default: &str| options.get(key).unwrap_or(default).to_owned();
        let force_local = options.get("dockerfilekey").is_some();
        let mut found = MainContext {
            remote: None,
            dockerfile: None,
            local_name: "context".to_owned(),
            dockerfile_local_name: name("dockerfilekey", "dockerfile"),
            filename: name("filename", "Dockerfile"),
            source: None,
        };
        let address = options.get(options.get("contextkey").unwrap_or("context")).unwrap_or_default();
        if let Some((git, constraints)) = git_context(options, address, true)? {
            let graph = alone(|builder| builder.git(&git, constraints))?;
            found.source = Some(graph.clone());
            found.dockerfile = Some(graph.clone());
            found.remote = Some(graph);
        } else if address.starts_with("http://") || address.starts_with("https://") {
            found.take_http(bridge, address).await?;
        } else {
            let inputs = bridge
                .inputs()
                .await
                .map_err(|cause| DockerfileError::outside("failed to get frontend inputs", cause))?;
            if let Some(graph) = inputs.get(&found.dockerfile_local_name) {
                found.dockerfile = Some(Arc::new(graph.clone()));
            }
            found.remote = inputs.get("context").map(|graph| Arc::new(graph.clone()));
        }
        if force_local {
            found.dockerfile = None;
        }
        if let (Some(graph), Some(folder)) = (&found.remote, options.get("contextsubdir")) {
            let mut builder = Builder::new();
            let action = CopyAction {
                from: builder.import(graph),
                src: folder.to_owned(),
                dest: "/".to_owned(),
                dir_contents_only: true,
                ..CopyAction::default()
            };
            let output = builder.file(None, vec![FileActionSpec::Copy(action)], Constraints::default());
            found.remote = Some(Arc::new(builder.graph(Some(output))?));
        }
        Ok(found)
    }

    async fn take_http<B: Bridge>(&mut self, bridge: &B, address: &str) -> Result<()> {
        const NAME: &str = "context";
        /// Enough to tell archives: two blocks of a tar file.
        const HEADER: u64 = 1024;
        let http = HttpSource { url: address.to_owned(), filename: NAME.to_owned(), ..HttpSource::default() };
        let graph = alone(|builder| builder.http(&http, internal("load remote build context")))?;
        let result = bridge
            .solve(Graph::clone(&graph), false)
            .await
            .map_err(|cause| DockerfileError::outside("failed to resolve httpcontext", cause))?;
        let header = bridge
            .read_file(&result, NAME, Some(HEADER))
            .await
            .map_err(|cause| DockerfileError::outside("failed to read downloaded context", cause))?;
        self.source = Some(graph.clone());
        if !is_archive(&header) {
            self.filename = NAME.to_owned();
            self.dockerfile = Some(graph.clone());
            self.remote = Some(graph);
            return Ok(());
        }
        let mut builder = Builder::new();
        let action = CopyAction {
            from: builder.import(&graph),
            src: format!("/{NAME}"),
            dest: "/".to_owned(),
            attempt_unpack: true,
            ..CopyAction::default()
        };
        let output = builder.file(None, vec![FileActionSpec::Copy(action)], Constraints::default());
        let unpacked = Arc::new(builder.graph(Some(output))?);
        self.dockerfile = Some(unpacked.clone());
        self.remote = Some(unpacked);
        Ok(())
    }

    /// The folder of the client that the Dockerfile is in.
    pub(crate) fn dockerfile_source(&self, options: &Options) -> (LocalSource, Constraints) {
        let mut follow_paths = vec![self.filename.clone(), format!("{}{IGNORE_FILE}", self.filename)];
        if let Some(lower) = lower_case_name(&self.filename) {
            follow_paths.push(lower);
        }
        let local = LocalSource {
            name: self.dockerfile_local_name.clone(),
            session: options.local_session(&self.dockerfile_local_name).to_owned(),
            follow_paths,
            shared_key_hint: self.dockerfile_local_name.clone(),
            differ: "none".to_owned(),
            ..LocalSource::default()
        };
        (local, internal(&format!("load build definition from {}", self.filename)))
    }

    /// The main context for a plan.
    pub(crate) fn source(&self, options: &Options, ignore: &[String]) -> ContextSource {
        if let Some(graph) = &self.remote {
            return ContextSource::Graph(graph.clone());
        }
        let local = LocalSource {
            name: self.local_name.clone(),
            session: options.local_session(&self.local_name).to_owned(),
            exclude_patterns: ignore.to_vec(),
            shared_key_hint: self.local_name.clone(),
            ..LocalSource::default()
        };
        ContextSource::Local(local, internal("load build context"))
    }
}

/// `dockerfile` is looked for where `Dockerfile` is missing.
pub(crate) fn lower_case_name(filename: &str) -> Option<String> {
    let folder = filename.strip_suffix("Dockerfile")?;
    (folder.is_empty() || folder.ends_with('/')).then(|| crosskit_llb::paths::join(&[folder, "dockerfile"]))
}

fn is_archive(header: &[u8]) -> bool {
    const MAGIC: [&[u8]; 3] = [b"BZh", &[0x1f, 0x8b, 8], &[0xfd, b'7', b'z', b'X', b'Z', 0]];
    MAGIC.iter().any(|magic| header.starts_with(magic)) || is_tar_header(header)
}

/// Whether the first block has the sum that tar puts into it.
fn is_tar_header(header: &[u8]) -> bool {
    let Some(block) = header.get(..512) else {
        return false;
    };
    let digits = String::from_utf8_lossy(&block[148..156]);
    let digits = digits.trim_matches(|c: char| c == ' ' || c == '\0');
    let Ok(want) = u32::from_str_radix(digits, 8) else {
        return false;
    };
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
    sum - own + 8 * u32::from(b' ') == want
}
