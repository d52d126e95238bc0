//! Dockerfiles and what becomes of them.
//!
//! A folder of `tests/cases/` holds a `Dockerfile`, the files beside it, a `case.toml` with the options of the build, and
//! what is expected: `llb.json` and `image.json`, or `error.json`. Digests of vertices are BuildKit's. With `BLESS=1`
//! expectations are written instead of compared; `CASES` names another folder of cases.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crosskit_api::pb;
use crosskit_dockerfile::{
    Bridge, BridgeError, DockerfileError, Environment, ErrorKind, Frontend, ImageQuery, Options,
    ResolvedImage, SourceWarning, Subrequest,
};
use crosskit_llb::{Digest, Graph, json};
use crosskit_platforms::Platform;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Case {
    options: BTreeMap<String, String>,
    images: Vec<Image>,
    build_platform: String,
    /// Names of folders that the client lends besides its own.
    locals: BTreeMap<String, String>,
    /// Answers to questions for the time of a source.
    times: BTreeMap<String, i64>,
}

#[derive(Debug, Deserialize)]
struct Image {
    reference: String,
    platform: String,
    digest: String,
    config: String,
}

/// Answers from a case's folder. An image that the case does not tell of has the digest of its name.
struct Folder {
    root: PathBuf,
    /// Instead of the one in the folder.
    dockerfile: Option<Vec<u8>>,
    case: Case,
    resolved: Mutex<Vec<String>>,
    warnings: Mutex<Vec<SourceWarning>>,
}

impl Folder {
    fn new(root: &Path, case: Case, dockerfile: Option<Vec<u8>>) -> Self {
        let (resolved, warnings) = (Mutex::default(), Mutex::default());
        Folder { root: root.to_owned(), dockerfile, case, resolved, warnings }
    }
}

fn failed(text: String) -> BridgeError {
    Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(text))
}

impl Bridge for Folder {
    type Ref = PathBuf;

    async fn solve(&self, graph: Graph, _: bool) -> Result<PathBuf, BridgeError> {
        let head = graph.head().ok_or_else(|| failed("empty graph".into()))?;
        let Some(pb::op::Op::Source(source)) = &graph[&head.vertex].op.op else {
            return Err(failed("only sources can be read".into()));
        };
        let name = source.identifier.strip_prefix("local://").unwrap_or_default();
        Ok(self.root.join(self.case.locals.get(name).map_or(".", String::as_str)))
    }

    async fn read_file(&self, root: &PathBuf, path: &str, _: Option<u64>) -> Result<Vec<u8>, BridgeError> {
        if let Some(text) = self.dockerfile.as_ref().filter(|_| path == "Dockerfile") {
            return Ok(text.clone());
        }
        std::fs::read(root.join(path)).map_err(|error| failed(format!("open {path}: {error}")))
    }

    async fn resolve_image(&self, query: ImageQuery) -> Result<ResolvedImage, BridgeError> {
        self.resolved.lock().unwrap().push(query.log_name.clone());
        let platform = query.platform.clone().unwrap_or_else(|| Platform::linux("amd64"));
        if query.reference.contains("/missing") {
            return Err(failed(format!("{}: not found", query.reference)));
        }
        let text = platform.format_all();
        let known = self.case.images.iter().find(|i| i.reference == query.reference && i.platform == text);
        let (digest, config) = match known {
            Some(image) => (image.digest.clone(), image.config.clone().into_bytes()),
            None => {
                let mut config = json!({
                    "architecture": platform.architecture,
                    "os": platform.os,
                    "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
                    "rootfs": {"type": "layers", "diff_ids": [Digest::of(query.reference.as_bytes()).to_string()]},
                });
                if !platform.variant.is_empty() {
                    config["variant"] = platform.variant.clone().into();
                }
                if query.reference.contains("/onbuild/") {
                    config["config"]["OnBuild"] = json!(["COPY --from=a x y", "ARG A=$A", "RUN <<E\n$A\nE"]);
                }
                (Digest::of(query.reference.as_bytes()).to_string(), config.to_string().into_bytes())
            }
        };
        Ok(ResolvedImage::Image { reference: query.reference, digest, config })
    }

    async fn source_time(&self, source: pb::SourceOp, _: &str) -> Result<Option<i64>, BridgeError> {
        Ok(self.case.times.get(&source.identifier).copied())
    }

    async fn inputs(&self) -> Result<BTreeMap<String, Graph>, BridgeError> {
        Ok(BTreeMap::new())
    }

    fn warn(&self, warning: SourceWarning) {
        self.warnings.lock().unwrap().push(warning);
    }
}

async fn build(folder: &Arc<Folder>) -> Result<Value, DockerfileError> {
    let platform = match folder.case.build_platform.as_str() {
        "" => "linux/amd64",
        platform => platform,
    };
    let environment = Environment {
        session: "labsession".into(),
        build_platform: Platform::parse(platform).unwrap(),
        unique: "unique".into(),
    };
    let options = Options::parse(folder.case.options.clone(), environment)?;
    let frontend = Frontend::read(folder.clone(), options).await?;
    if let Some(answer) = frontend.subrequest().await? {
        let Subrequest { metadata } = answer;
        let text = |(key, value): (String, Vec<u8>)| (key, String::from_utf8(value).unwrap());
        let map: BTreeMap<String, String> = metadata.into_iter().map(text).collect();
        return Ok(json!({ "answer": map }));
    }
    let result = frontend.build().await?;
    let mut llb = BTreeMap::new();
    for platform in &result.platforms {
        let def = platform.graph.to_definition();
        let mut ops = Vec::new();
        let mut at = BTreeMap::new();
        for vertex in platform.graph.vertices() {
            let line = json::dump_line(&vertex.op, &vertex.digest, &vertex.wire_metadata());
            let mut line: Value = serde_json::from_str(&line).unwrap();
            // Ids of progress groups are different in each build.
            if let Some(group) = line.pointer_mut("/OpMetadata/progress_group/id") {
                *group = "id".into();
            }
            ops.push(line);
            let lines = platform.graph.source_locations(&vertex.digest).iter().map(|place| {
                let line = |range: &pb::Range| range.start.map(|start| start.line);
                place.ranges.iter().map(line).collect::<Vec<_>>()
            });
            let lines: Vec<_> = lines.collect();
            if !lines.is_empty() {
                at.insert(vertex.digest.to_string(), lines);
            }
        }
        let last = def.def.last().map(|raw| Digest::of(raw).to_string());
        llb.insert(&platform.id, json!({"ops": ops, "end": last, "lines": at}));
    }
    let text = |(key, value): (String, Vec<u8>)| (key, String::from_utf8(value).unwrap());
    let metadata: BTreeMap<String, String> = result.metadata().into_iter().map(text).collect();
    Ok(json!({ "llb": llb, "metadata": metadata }))
}

fn warnings(folder: &Folder) -> Vec<Value> {
    let warnings = folder.warnings.lock().unwrap();
    let show = |found: &SourceWarning| {
        let rule = found.warning.rule;
        json!({
            "short": found.warning.short(),
            "detail": rule.description,
            "url": rule.url,
            "lines": [found.warning.lines.first, found.warning.lines.last],
        })
    };
    warnings.iter().map(show).collect()
}

fn run(dir: &Path) -> BTreeMap<&'static str, Value> {
    let case: Case = toml::from_str(&std::fs::read_to_string(dir.join("case.toml")).unwrap()).unwrap();
    let folder = Arc::new(Folder::new(dir, case, None));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut files = BTreeMap::new();
    match runtime.block_on(build(&folder)) {
        Ok(mut done) => {
            if done.get("answer").is_some() {
                files.insert("answer.json", done["answer"].take());
                return files;
            }
            let mut llb = json!({ "platforms": done["llb"].take() });
            let mut resolved = folder.resolved.lock().unwrap().clone();
            resolved.sort();
            llb["resolved"] = resolved.into();
            llb["warnings"] = warnings(&folder).into();
            files.insert("llb.json", llb);
            files.insert("image.json", done["metadata"].take());
        }
        Err(error) => {
            let lines: Vec<_> = error.locations.iter().map(|l| [l.first, l.last]).collect();
            let message = error.to_string();
            files.insert("error.json", json!({"message": message, "lines": lines}));
        }
    }
    files
}

#[test]
fn dockerfiles_become_what_is_expected() {
    let cases = std::env::var("CASES")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"), PathBuf::from);
    let bless = std::env::var("BLESS").is_ok_and(|value| value == "1");
    let mut names: Vec<_> = std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    let mut wrong = Vec::new();
    for dir in &names {
        let files = run(dir);
        for name in ["llb.json", "image.json", "error.json", "answer.json"] {
            let path = dir.join(name);
            let found = files.get(name).map(|v| serde_json::to_string_pretty(v).unwrap() + "\n");
            if bless {
                match &found {
                    Some(text) => std::fs::write(&path, text).unwrap(),
                    None => drop(std::fs::remove_file(&path)),
                }
            } else if std::fs::read_to_string(&path).ok() != found {
                wrong.push(format!("{}: found\n{}", path.display(), found.unwrap_or_else(|| "none".into())));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ; BLESS=1 accepts:\n{}", wrong.len(), wrong.join("\n"));
}

/// What becomes of a text with these options.
fn of_text(text: &str, options: &[(&str, &str)]) -> (Result<Value, DockerfileError>, Vec<Value>) {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let case = Case { options: options.iter().map(own).collect(), ..Case::default() };
    let folder = Arc::new(Folder::new(Path::new("."), case, Some(text.as_bytes().to_vec())));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    (runtime.block_on(build(&folder)), warnings(&folder))
}

#[test]
fn an_outline_tells_what_the_checks_found() {
    let text = "ARG Z=1 A=2\nFROM busybox:$Z$A\nENV old style\nRUN --mount=type=secret,id=s --mount=type=secret,id=r id\n";
    let outline = ("requestid", "frontend.outline");
    let (answer, found) = of_text(text, &[outline]);
    let answer: Value =
        serde_json::from_str(answer.unwrap()["answer"]["result.json"].as_str().unwrap()).unwrap();
    let names = |list: &str| -> Vec<String> {
        answer[list].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (names("args"), names("secrets")),
        (vec!["Z".into(), "A".into()], vec!["s".into(), "r".into()])
    );
    assert_eq!(found.len(), 1);
    assert!(found[0]["short"].as_str().unwrap().starts_with("LegacyKeyValueFormat: "), "{found:?}");
    let (answer, found) = of_text(text, &[outline, ("build-arg:BUILDKIT_DOCKERFILE_CHECK", "error=true")]);
    assert_eq!(answer.unwrap_err().to_string(), "lint violation found for rules: LegacyKeyValueFormat");
    assert_eq!(found.len(), 1);
}

#[test]
fn what_is_wrong_is_told_with_all_advice() {
    let targets = &[("requestid", "frontend.targets")];
    for (text, options, message, advice) in [
        (
            "FROM a b AS c\n",
            &[][..],
            "FROM requires either one or three arguments",
            &["FromAsCasing: 'b' "][..],
        ),
        ("FROM a\nRUN x\nCOPY ${B?x} /\n", &[], "B: x", &["UndefinedVar: Usage of undefined variable '$B'"]),
        ("FROM ${N?x}\n", &[], "N: x", &["UndefinedArgInFrom: FROM argument 'N' is not declared"]),
        ("", &[], "the Dockerfile cannot be empty", &[]),
        ("", targets, "file with no instructions", &[]),
        ("ARG a\n", &[], "dockerfile contains no stages to build", &[]),
        (
            "# check=error=true no more\nFROM a\nENV b c\n",
            &[],
            "lint violation found for rules: LegacyKeyValueFormat",
            &["LegacyKeyValueFormat: "],
        ),
    ] {
        let (answer, found) = of_text(text, options);
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(message), "{text:?}: {error}");
        let short = |found: &Value| found["short"].as_str().unwrap().to_owned();
        let found: Vec<_> = found.iter().map(short).filter(|one| !one.contains("InvalidDefault")).collect();
        assert_eq!(found.len(), advice.len(), "{text:?}: {found:?}");
        assert!(found.iter().zip(advice).all(|(found, want)| found.starts_with(want)), "{text:?}: {found:?}");
    }
    let (none, _) = of_text("ARG a\n", targets);
    let answer = none.unwrap()["answer"]["result.json"].take();
    assert!(answer.as_str().unwrap().contains("\"targets\": null"), "{answer}");
    let (wrong, _) = of_text("# check=what\nFROM a\n", &[("requestid", "frontend.lint")]);
    let answer = wrong.unwrap()["answer"]["result.json"].take();
    assert!(answer.as_str().unwrap().contains("failed to parse check options: "), "{answer}");
}

/// Lines of instructions with holes, so that random files are mostly valid and sometimes not.
fn line() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a",
        "b",
        "$A",
        "${B:-x}",
        "${A%?}",
        "/",
        "..",
        "",
        "0",
        "1",
        "-1",
        "scratch",
        "a:b",
        "\"q\"",
        "https://x/y.git",
        "http://x/",
        "--",
        "*",
        "[\"x\"]",
        "<<E",
        "root:0",
        "70000-1",
        "linux/arm/v7",
    ]);
    let form = prop::sample::select(vec![
        "FROM {} AS {}",
        "FROM {}",
        "FROM --platform={} {}",
        "RUN {} {}",
        "COPY {} {}",
        "COPY --from={} {} {}",
        "COPY --link --parents {} {}",
        "ADD --checksum={} {} {}",
        "ENV {}={}",
        "ENV {} {}",
        "ARG {}={}",
        "ARG {}",
        "WORKDIR {}",
        "USER {}",
        "EXPOSE {}",
        "VOLUME {}",
        "LABEL {}={}",
        "STOPSIGNAL {}",
        "ONBUILD RUN {}",
        "ONBUILD COPY --from={} {} {}",
        "RUN --mount=type={},from={},target={} {}",
        "RUN --mount=target={},from={} x",
        "RUN --mount=type=cache,id={},target={},mode={},uid={} x",
        "RUN --mount=type=cache,target={},from={},source={},sharing={} x",
        "RUN --mount=type=secret,id={},env={},target={} x",
        "RUN --mount=type=secret,target={},mode={} --mount=type=ssh,id={},uid={} x",
        "RUN --mount=type=tmpfs,target={},size={} x",
        "RUN --network={} --security={} --device={} {}",
        "RUN [{}]",
        "RUN <<E {}\n{}\nE",
        "COPY --chown={} --chmod={} {} {}",
        "COPY --exclude={} --from={} {} {}",
        "COPY <<E <<-'F' {}\n{}\nE\n{}\nF",
        "ADD --chown={} --unpack={} {} {}",
        "ADD --keep-git-dir={} --link={} https://x/{}.git#{} y",
        "ADD http://x/{} {}",
        "HEALTHCHECK --interval={} CMD {}",
        "HEALTHCHECK --timeout={} --start-period={} --retries={} CMD [{}]",
        "HEALTHCHECK {}",
        "CMD {}",
        "CMD [{}]",
        "ENTRYPOINT {}",
        "SHELL [\"{}\"]",
        "MAINTAINER {}",
        "ONBUILD {} {}",
        "FROM onbuild/{} AS {}",
        "E",
    ]);
    (form, prop::collection::vec(word, 4)).prop_map(|(form, words)| {
        words.into_iter().fold(form.to_owned(), |line, word| line.replacen("{}", word, 1))
    })
}

/// What a request may say, mostly what it should.
fn option() -> impl Strategy<Value = (String, String)> {
    let given = [
        ("target", "a"),
        ("target", "0"),
        ("platform", "linux/arm/v7"),
        ("platform", "linux/amd64,windows/amd64"),
        ("no-cache", ""),
        ("no-cache", "a,b"),
        ("add-hosts", "a=1.2.3.4"),
        ("add-hosts", "\"a"),
        ("shm-size", "-1"),
        ("ulimit", "nofile=1:2"),
        ("cpusetcpus", "0-"),
        ("force-network-mode", "host"),
        ("label:a", "$A"),
        ("build-arg:A", "${B}"),
        ("build-arg:B", ""),
        ("build-arg:SOURCE_DATE_EPOCH", "1"),
        ("build-arg:SOURCE_DATE_EPOCH", "a"),
        ("build-arg:SOURCE_DATE_EPOCH", "context"),
        ("build-arg:BUILDKIT_DOCKERFILE_CHECK", "error=true;skip=x"),
        ("context", "https://x/y.git#z"),
        ("context:a", "docker-image://onbuild/x"),
        ("context:a", "local:x"),
        ("context:x", "input:x"),
        ("context:x::linux/arm64", "https://x/y"),
        ("context:a", "oci-layout://x@sha256:0"),
        ("multi-platform", "1"),
        ("requestid", "frontend.outline"),
        ("requestid", "frontend.targets"),
        ("requestid", "frontend.lint"),
    ];
    prop::sample::select(given.to_vec()).prop_map(|(key, value)| (key.to_owned(), value.to_owned()))
}

#[test]
fn a_short_file_cannot_ask_for_much_memory() {
    let lines = |line: fn(usize) -> String| (1..64).map(line).collect::<String>();
    let x = "x".repeat(1000);
    let each = "$A".repeat(20);
    let globals = lines(|n| format!("ARG A{n}=$A{m}$A{m}\n", m = n - 1));
    let stage = lines(|n| format!("ENV A{n}=$A{m}$A{m}\n", m = n - 1));
    let one = "ENV A=$A$A\n".repeat(64);
    let replaced = "ENV A=${A//x/$A}\n".repeat(64);
    let labels = format!("LABEL a={each}\n").repeat(100);
    for (file, text) in [
        (format!("ARG A0={x}\n{globals}FROM scratch\n"), "the variables have "),
        (format!("FROM scratch\nENV A0={x}\n{stage}"), "the variables have "),
        (format!("FROM scratch\nENV A={x}\n{one}"), "the variables have "),
        (format!("FROM scratch\nENV A={x}\n{replaced}"), "with its variables it has more than"),
        (
            format!("FROM scratch\nENV A={}\n{labels}", x.repeat(60)),
            "with variables replaced, the instructions have more than",
        ),
    ] {
        let mut case = Case::default();
        case.options.insert("platform".into(), "linux/amd64".into());
        let folder = Arc::new(Folder::new(Path::new("."), case, Some(file.into_bytes())));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(build(&folder)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User);
        assert!(error.to_string().contains(text), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn builds_never_panic(
        lines in prop::collection::vec(line(), 0..12),
        options in prop::collection::vec(option(), 0..3),
    ) {
        let file = format!("FROM scratch AS a\n{}", lines.join("\n"));
        let mut case = Case::default();
        case.options.insert("platform".into(), "linux/amd64,linux/arm64".into());
        case.options.extend(options);
        let folder = Arc::new(Folder::new(Path::new("."), case, Some(file.into_bytes())));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Err(error) = runtime.block_on(build(&folder)) {
            prop_assert_ne!(error.kind(), ErrorKind::Internal, "{}", error);
        }
    }
}
