//! Dockerfiles and what BuildKit 0.32 makes of them: vertices with their digests, names and lines, configurations of
//! images byte for byte, questions for images, and warnings.
//!
//! `tests/goldens/<theme>.toml` has the builds; `tests/goldens/<theme>.txt` was written by BuildKit's own frontend and is
//! never to be written by ours: where the two differ, ours is wrong. Of a line `op`, `about` is the beginning of the
//! digest of what is said about the vertex. `GOLDENS` names another folder of themes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crosskit_api::pb;
use crosskit_dockerfile::{
    Bridge, BridgeError, DockerfileError, Environment, Frontend, ImageQuery, Options, PlatformResult,
    ResolvedImage, SourceWarning,
};
use crosskit_llb::{Builder, Constraints, Digest, Graph, ImageSource, json};
use crosskit_platforms::Platform;
use serde::Deserialize;
use serde_json::json;

/// A file of builds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Theme {
    /// Base images that its builds may use.
    #[serde(default)]
    image: Vec<Image>,
    build: Vec<Build>,
}

/// An image that the world outside has. Others have the digest of their name and nothing but a `PATH`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    reference: String,
    /// None for all.
    #[serde(default)]
    platform: String,
    config: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Build {
    name: String,
    dockerfile: String,
    options: BTreeMap<String, String>,
    /// Other files of its contexts.
    files: BTreeMap<String, String>,
    /// Graphs that the client gives, each of one image.
    inputs: BTreeMap<String, String>,
    /// When sources were last changed.
    times: BTreeMap<String, i64>,
}

/// The world outside of a build.
struct Outside {
    build: Build,
    images: Vec<Image>,
    lines: Mutex<Vec<String>>,
}

fn failed(text: String) -> BridgeError {
    Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(text))
}

impl Bridge for Outside {
    type Ref = ();

    async fn solve(&self, _: Graph, _: bool) -> Result<(), BridgeError> {
        Ok(())
    }

    async fn read_file(&self, (): &(), path: &str, _: Option<u64>) -> Result<Vec<u8>, BridgeError> {
        let text = match path {
            "Dockerfile" => Some(&self.build.dockerfile),
            path => self.build.files.get(path),
        };
        text.map(|text| text.clone().into_bytes()).ok_or_else(|| failed(format!("open {path}: no such file")))
    }

    async fn resolve_image(&self, query: ImageQuery) -> Result<ResolvedImage, BridgeError> {
        let platform = query.platform.clone().unwrap_or_else(|| Platform::linux("amd64"));
        let text = platform.format_all();
        let line = format!("resolved {} {text} {}", query.reference, query.log_name);
        self.lines.lock().unwrap().push(line);
        let of_name = Digest::of(query.reference.as_bytes()).to_string();
        let fits = |image: &&Image| {
            image.reference == query.reference && (image.platform.is_empty() || image.platform == text)
        };
        let config = match self.images.iter().find(fits) {
            Some(image) => image.config.clone(),
            None => {
                let mut config = json!({
                    "architecture": platform.architecture,
                    "os": platform.os,
                    "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
                    "rootfs": {"type": "layers", "diff_ids": [of_name]},
                });
                if !platform.variant.is_empty() {
                    config["variant"] = platform.variant.clone().into();
                }
                config.to_string()
            }
        };
        let digest = query.reference.split_once('@').map_or(of_name, |(_, digest)| digest.to_owned());
        Ok(ResolvedImage::Image { reference: query.reference, digest, config: config.into_bytes() })
    }

    async fn source_time(&self, source: pb::SourceOp, _: &str) -> Result<Option<i64>, BridgeError> {
        Ok(self.build.times.get(&source.identifier).copied())
    }

    async fn inputs(&self) -> Result<BTreeMap<String, Graph>, BridgeError> {
        let graph = |(name, image): (&String, &String)| {
            let mut builder = Builder::new();
            let platform =
                pb::Platform { architecture: "amd64".into(), os: "linux".into(), ..pb::Platform::default() };
            let source = ImageSource { reference: image.clone(), ..ImageSource::default() };
            let output = builder.image(&source, Constraints::on(platform));
            (name.clone(), builder.graph(Some(output)).unwrap())
        };
        Ok(self.build.inputs.iter().map(graph).collect())
    }

    fn warn(&self, warning: SourceWarning) {
        let lines = warning.warning.lines;
        let line = format!("warning {}-{} {}", lines.first, lines.last, warning.warning.short());
        self.lines.lock().unwrap().push(line);
    }
}

/// The lines of a graph.
fn show(graph: &Graph) -> String {
    let mut out = String::new();
    for vertex in graph.vertices() {
        let ranges = graph.source_locations(&vertex.digest).iter().flat_map(|place| &place.ranges);
        let line = |at: Option<pb::Position>| at.map_or(0, |at| at.line);
        let lines: Vec<_> =
            ranges.map(|range| format!("{}-{}", line(range.start), line(range.end))).collect();
        let mut metadata = vertex.wire_metadata();
        if let Some(group) = &mut metadata.progress_group {
            // Different in each build.
            group.id = "id".into();
        }
        let dump = json::dump_line(&vertex.op, &vertex.digest, &metadata);
        let about = dump.split_once(",\"OpMetadata\":").unwrap().1.strip_suffix('}').unwrap();
        let about = &Digest::of(about.as_bytes()).to_string()["sha256:".len()..][..8];
        let source = match &vertex.op.op {
            Some(pb::op::Op::Source(source)) => source.identifier.as_str(),
            _ => "",
        };
        let name = metadata.description.get("llb.customname").map_or(source, String::as_str);
        writeln!(out, "op {} lines={} about={about} {}", vertex.digest, lines.join(","), json!(name))
            .unwrap();
    }
    if let Some(end) = graph.to_definition().def.last() {
        writeln!(out, "end {}", Digest::of(end)).unwrap();
    }
    out
}

/// The graphs of platforms, or none for a question, and what exporters or clients are told.
type Built = (Vec<(String, Graph)>, BTreeMap<String, Vec<u8>>);

async fn build(outside: Arc<Outside>) -> Result<Built, DockerfileError> {
    let environment = Environment {
        session: "session".into(),
        build_platform: Platform::linux("amd64"),
        unique: "unique".into(),
    };
    let mut options = outside.build.options.clone();
    options.entry("platform".to_owned()).or_insert_with(|| "linux/amd64".to_owned());
    let frontend = Frontend::read(outside, Options::parse(options, environment)?).await?;
    if let Some(answer) = frontend.subrequest().await? {
        return Ok((Vec::new(), answer.metadata.into_iter().collect()));
    }
    let result = frontend.build().await?;
    let (multi_platform, metadata) = (result.multi_platform, result.metadata());
    let graph = |platform: PlatformResult| match multi_platform {
        true => (format!("graph {}", platform.id), platform.graph),
        false => ("graph".to_owned(), platform.graph),
    };
    let mut graphs: Vec<_> = result.platforms.into_iter().map(graph).collect();
    graphs.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((graphs, metadata))
}

/// What becomes of a build, in lines.
async fn run(asked: Build, images: Vec<Image>) -> String {
    let outside = Arc::new(Outside { build: asked, images, lines: Mutex::default() });
    let built = build(outside.clone()).await;
    let mut lines = outside.lines.lock().unwrap().clone();
    lines.sort();
    let mut out = String::new();
    for line in lines {
        writeln!(out, "{line}").unwrap();
    }
    match built {
        Ok((graphs, metadata)) => {
            for (title, graph) in graphs {
                write!(out, "{title}\n{}", show(&graph)).unwrap();
            }
            for (key, value) in metadata {
                writeln!(out, "{key} {}", String::from_utf8(value).unwrap()).unwrap();
            }
        }
        Err(error) => writeln!(out, "error {}", json!(error.to_string())).unwrap(),
    }
    out
}

/// What BuildKit made of each build of a theme.
fn goldens(text: &str) -> BTreeMap<&str, &str> {
    let mut all = BTreeMap::new();
    for golden in text.split("== ").skip(1) {
        let (name, lines) = golden.split_once('\n').unwrap();
        assert!(all.insert(name, lines).is_none(), "{name} is there twice");
    }
    all
}

/// The lines in which two texts differ.
fn difference(want: &str, found: &str) -> String {
    let (wanted, got): (Vec<_>, Vec<_>) = (want.lines().collect(), found.lines().collect());
    let missing = wanted.iter().filter(|line| !got.contains(line)).map(|line| format!("  - {line}\n"));
    let extra = got.iter().filter(|line| !wanted.contains(line)).map(|line| format!("  + {line}\n"));
    missing.chain(extra).collect()
}

#[tokio::test]
async fn graphs_and_configurations_are_those_of_buildkit() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let folder = std::env::var("GOLDENS").map_or(own, PathBuf::from);
    let mut themes: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    themes.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    themes.sort();
    let (mut builds, mut wrong) = (0, String::new());
    for path in themes {
        let theme: Theme = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let text = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let mut goldens = goldens(&text);
        for build in theme.build {
            let name = build.name.clone();
            let found = run(build, theme.image.clone()).await;
            builds += 1;
            match goldens.remove(name.as_str()) {
                None => writeln!(wrong, "{}: {name} has no golden", path.display()).unwrap(),
                Some(want) if want == found => {}
                Some(want) => {
                    let why = difference(want, &found);
                    writeln!(wrong, "{}: {name}:\n{why}", path.display()).unwrap();
                }
            }
        }
        assert!(goldens.is_empty(), "{}: goldens of no build: {:?}", path.display(), goldens.keys());
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_ne!(builds, 0);
}
