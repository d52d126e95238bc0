//! `crosskit build PATH`: an image from a Dockerfile without knowing frontends and exporters.

use super::build::{self, Files, all_caches, path};
use crate::attrs::{self, about, pairs};
use crate::caches::{Way, lend_keys};
use crate::connection::{Address, Target};
use crate::error::ClientError;
use crate::flags::{Flag, Kind, Parsed, flag};
use crate::outputs::{self, Destination, Export, Leftovers};
use crate::plan::Plan;
use crate::progress::{self, Mode};
use crate::{Embedded, StartEmbedded};
use crosskit_platforms::Platform;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Flags in the words of `docker build`.
pub(super) static FLAGS: [Flag; 25] = [
    flag("platform", Kind::List, "Build for these, for example linux/amd64,linux/arm64"),
    flag("tag", Kind::List, "Name of the image").short("t"),
    flag("file", Kind::Text(""), "The Dockerfile (default: PATH/Dockerfile)").short("f"),
    flag("target", Kind::Text(""), "Build up to this stage"),
    flag(
        "build-arg",
        Kind::List,
        "Value of an ARG, as name=value; a bare name takes it from the environment",
    ),
    flag("build-context", Kind::List, "Another context that the Dockerfile can name, as name=path"),
    flag("label", Kind::List, "Label of the image, as key=value"),
    flag("annotation", Kind::List, "Annotation of the image, as [manifest|index…:]key=value"),
    flag("output", Kind::List, "Where the result goes: a folder, - for a tar on standard output, or type=…")
        .short("o"),
    flag("push", Kind::Bool, "Push the image to its registry"),
    flag("load", Kind::Bool, "Hand the image to the local Docker"),
    flag("no-cache", Kind::Bool, "Run every step again"),
    flag("pull", Kind::Bool, "Ask registries for newer base images"),
    flag(
        "cache-from",
        Kind::List,
        "Read a build cache, for example from type=registry,ref=example.com/foo/bar",
    ),
    flag(
        "cache-to",
        Kind::List,
        "Write the build cache, for example to type=registry,ref=example.com/foo/bar",
    ),
    flag("secret", Kind::List, "Lend the build a secret, as id=name,src=path or id=name,env=variable"),
    flag("ssh", Kind::List, "Lend the build an ssh agent or keys, as default|<id>[=<socket>|<key>[,<key>]]"),
    flag("allow", Kind::List, "Allow the build a privilege: network.host, security.insecure, device"),
    flag("network", Kind::Text(""), "Network of RUN steps: default, none or host"),
    flag("add-host", Kind::List, "Host name that steps know, as host:ip"),
    flag("opt", Kind::List, "Any other option of the frontend, as key=value"),
    flag("metadata-file", Kind::Text(""), "File for what the result is, such as its digest, as JSON"),
    flag("iidfile", Kind::Text(""), "File for the image's id"),
    flag("progress", Kind::Text("auto"), "How progress is shown (auto, plain, tty, rawjson, quiet)"),
    flag("quiet", Kind::Bool, "Show nothing but the image's id").short("q"),
];

/// The frontend for Dockerfiles.
const FRONTEND: &str = "dockerfile.v0";

/// Runs `crosskit build`, on the daemon that answers or on one of our own.
pub(crate) async fn run(flags: &Parsed, start: StartEmbedded) -> Result<(), ClientError> {
    let plan = plan(flags)?;
    let quiet = flags.on("quiet");
    let wish = if quiet { "quiet" } else { flags.text("progress") };
    let mode = Mode::choose(wish, progress::Target::Stderr)?;
    let files = Files { metadata: path(flags.text("metadata-file")), ..Files::default() };
    let stays_in_cache = plan.exports.is_empty() && !plan.is_question();
    let target = Target::from_flags(flags)?;
    let outcome = if target.address.answers() {
        let channel = target.connect(&format!("connect to the daemon at {}", target.text)).await?;
        build::execute(&channel, plan, mode, &files).await?
    } else {
        if flags.given("addr") {
            // Somebody wants that one and no other.
            target.connect(&format!("connect to the daemon at {}", target.text)).await?;
        }
        let failed = |why: String| ClientError::Embedded { addr: target.text.clone(), why };
        let Embedded { channel, stop } = (start.start)().await.map_err(|e| failed(e.to_string()))?;
        let outcome = build::execute(&channel, plan, mode, &files).await;
        drop(channel);
        stop.await;
        outcome?
    };
    build::print_answer(&outcome)?;
    let response = &outcome.response.exporter_response;
    let id = response.get("containerimage.config.digest").or_else(|| response.get("containerimage.digest"));
    if let (Some(file), Some(id)) = (path(flags.text("iidfile")), id) {
        crate::metadata_file::write_whole(&file, id.as_bytes())?;
    }
    if let (true, Some(id)) = (quiet, response.get("containerimage.digest").or(id)) {
        super::print(&format!("{id}\n"))?;
    }
    if matches!(mode, Mode::Plain | Mode::Tty) {
        eprint!("{}", closing_words(&outcome.seen.warnings, stays_in_cache));
    }
    Ok(())
}

/// What a person should know after a build that succeeded.
fn closing_words(warnings: &[String], stays_in_cache: bool) -> String {
    let mut out = String::new();
    if !warnings.is_empty() {
        let s = if warnings.len() == 1 { "" } else { "s" };
        out += &format!("\n {} warning{s} found:\n", warnings.len());
        out.extend(warnings.iter().map(|w| format!(" - {w}\n")));
    }
    if stays_in_cache {
        out += "\n nothing takes the result, so it stays in the build cache; use --tag with --push or --load, or --output\n";
    }
    out
}

/// Whether a daemon has to be started for this command line.
pub(crate) fn needs_embedded(flags: &Parsed) -> bool {
    Address::parse(flags.text("addr")).is_ok_and(|address| !address.answers())
}

fn plan(flags: &Parsed) -> Result<Plan, ClientError> {
    let context = match flags.arguments.as_slice() {
        [context] => context.as_str(),
        [] => {
            return Err(ClientError::invalid(
                "crosskit build needs a PATH or URL to build from, as in: crosskit build .",
            ));
        }
        more => {
            return Err(ClientError::invalid(format!(
                "crosskit build takes one PATH, but got {}: {}; flags with a value need one each",
                more.len(),
                more.join(" ")
            )));
        }
    };
    let mut plan = Plan::new();
    plan.frontend = FRONTEND.into();
    build::lend_values(&mut plan, flags)?;
    plan.entitlements = flags.list("allow").to_vec();
    attrs::check_entitlements(&plan.entitlements)?;
    let own = |name: &str| std::env::var(name).ok();
    plan.cache_exports = lend_keys(all_caches(flags.list("cache-to"), Way::Export)?, own);
    plan.cache_imports = lend_keys(all_caches(flags.list("cache-from"), Way::Import)?, own);
    plan.options = options(flags)?;
    add_context(&mut plan, context, flags.text("file"))?;
    for (name, place) in pairs(flags.list("build-context")).map_err(about("invalid build context"))? {
        add_named_context(&mut plan, &name, &place);
    }
    plan.exports = exports(flags)?;
    plan.load = flags.on("load");
    annotate(&mut plan.exports, flags.list("annotation"))?;
    plan.check_folders()?;
    Ok(plan)
}

fn options(flags: &Parsed) -> Result<BTreeMap<String, String>, ClientError> {
    let with =
        |prefix: &str, list: &[String]| list.iter().map(|v| format!("{prefix}{v}")).collect::<Vec<_>>();
    let mut list = with("build-arg:", flags.list("build-arg"));
    list.extend(
        with("label:", flags.list("label")).into_iter().map(|l| if l.contains('=') { l } else { l + "=" }),
    );
    list.extend(flags.list("opt").iter().cloned());
    let mut options = attrs::options(&list).map_err(about("invalid option"))?;
    let mut platforms = Vec::new();
    for name in
        flags.list("platform").iter().flat_map(|p| p.split(',')).map(str::trim).filter(|p| !p.is_empty())
    {
        let platform = match name {
            "local" => crosskit_platforms::native(),
            name => Platform::parse(name).map_err(|e| ClientError::invalid(e.to_string()))?,
        };
        platforms.push(platform.normalize().format_all());
    }
    let mut set = |key: &str, value: String| {
        if !value.is_empty() {
            options.insert(key.to_owned(), value);
        }
    };
    set("platform", platforms.join(","));
    set("target", flags.text("target").to_owned());
    let hosts =
        flags.list("add-host").iter().map(|host| host.replacen(':', "=", usize::from(!host.contains('='))));
    set("add-hosts", hosts.collect::<Vec<_>>().join(","));
    match flags.text("network") {
        "" | "default" => {}
        mode @ ("none" | "host") => set("force-network-mode", mode.to_owned()),
        other => {
            return Err(ClientError::invalid(format!(
                "unknown network {other:?}; use default, none or host"
            )));
        }
    }
    if flags.on("pull") {
        set("image-resolve-mode", "pull".into());
    }
    if flags.on("no-cache") {
        options.insert("no-cache".into(), String::new());
    }
    Ok(options)
}

fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"].iter().any(|p| context.starts_with(p))
}

fn add_context(plan: &mut Plan, context: &str, file: &str) -> Result<(), ClientError> {
    if context == "-" || file == "-" {
        return Err(ClientError::invalid(
            "reading the context or Dockerfile from standard input is not supported; give a folder, and the Dockerfile with --file",
        ));
    }
    if is_remote(context) {
        plan.options.insert("context".into(), context.to_owned());
        if !file.is_empty() {
            plan.options.insert("filename".into(), file.to_owned());
        }
        return Ok(());
    }
    let folder = Path::new(context);
    if !folder.is_dir() {
        return Err(ClientError::invalid(format!("there is no folder {context} to build from")));
    }
    let dockerfile = if file.is_empty() { folder.join("Dockerfile") } else { file.into() };
    if !dockerfile.is_file() {
        return Err(ClientError::invalid(format!(
            "there is no Dockerfile at {}; name another one with --file",
            dockerfile.display()
        )));
    }
    let name = dockerfile.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = dockerfile.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    plan.folders.insert("context".into(), folder.into());
    plan.folders.insert("dockerfile".into(), parent.into());
    plan.options.insert("filename".into(), name);
    let absolute = std::fs::canonicalize(folder).map_err(|e| ClientError::open(folder, e))?;
    plan.shared_key = hex::encode(Sha256::digest(absolute.as_os_str().as_encoded_bytes()));
    Ok(())
}

/// Another context: a folder, an OCI layout, or something that the daemon fetches.
fn add_named_context(plan: &mut Plan, name: &str, place: &str) {
    let key = format!("context:{name}");
    if let Some(layout) = place.strip_prefix("oci-layout://") {
        let (path, image) = match layout.rfind(['@', ':']) {
            Some(at) if !layout[at..].contains('/') => layout.split_at(at),
            _ => (layout, ""),
        };
        plan.layouts.insert(name.to_owned(), path.into());
        plan.options.insert(key, format!("oci-layout://{name}{image}"));
    } else if place.contains("://") || is_remote(place) {
        plan.options.insert(key, place.to_owned());
    } else {
        plan.folders.insert(name.to_owned(), place.into());
        plan.options.insert(key, format!("local:{name}"));
    }
}

fn exports(flags: &Parsed) -> Result<Vec<Export>, ClientError> {
    let names = flags.list("tag").join(",");
    let mut exports = Vec::new();
    for output in flags.list("output") {
        exports.push(match output.as_str() {
            "-" => outputs::parse("type=tar,dest=-")?,
            text if text.contains("type=") => outputs::parse(text)?,
            folder => Export {
                kind: "local".into(),
                attrs: BTreeMap::new(),
                to: Destination::Folder(folder.into(), Leftovers::Keep),
            },
        });
    }
    if flags.on("push") && flags.on("load") {
        return Err(ClientError::invalid(
            "--push and --load can't be used together; load what was pushed with docker pull",
        ));
    }
    if flags.on("load") {
        exports.push(Export { kind: "docker".into(), attrs: BTreeMap::new(), to: Destination::Stdout });
        if exports.len() > 1 {
            return Err(ClientError::invalid("--load can't be used together with --output"));
        }
    }
    let wants_image = flags.on("push") || (exports.is_empty() && !names.is_empty());
    if wants_image && !exports.iter().any(|e| e.kind == "image") {
        exports.push(Export { kind: "image".into(), attrs: BTreeMap::new(), to: Destination::Daemon });
    }
    for export in &mut exports {
        if !names.is_empty() && ["image", "oci", "docker"].contains(&export.kind.as_str()) {
            export.attrs.entry("name".into()).or_insert_with(|| names.clone());
        }
        if flags.on("push") && export.kind == "image" {
            if !export.attrs.contains_key("name") {
                return Err(ClientError::invalid("--push needs a name for the image; give one with --tag"));
            }
            export.attrs.insert("push".into(), "true".into());
        }
    }
    Ok(exports)
}

/// Adds annotations to image results; levels stand in front, as in `index:key=value`.
fn annotate(exports: &mut [Export], annotations: &[String]) -> Result<(), ClientError> {
    for annotation in annotations {
        let Some((key, value)) = annotation.split_once('=') else {
            return Err(ClientError::invalid(format!(
                "annotation {annotation:?} is not of the form key=value"
            )));
        };
        let (levels, key) = match key.split_once(':') {
            Some((levels, key)) if levels.split(',').all(is_level) => (levels, key),
            _ => ("manifest", key),
        };
        for level in levels.split(',') {
            let name = if level == "manifest" {
                format!("annotation.{key}")
            } else {
                format!("annotation-{level}.{key}")
            };
            for export in exports.iter_mut().filter(|e| ["image", "oci", "docker"].contains(&e.kind.as_str()))
            {
                export.attrs.insert(name.clone(), value.to_owned());
            }
        }
    }
    Ok(())
}

fn is_level(word: &str) -> bool {
    let level = word.split('[').next().unwrap_or_default();
    ["manifest", "manifest-descriptor", "index", "index-descriptor"].contains(&level)
}

#[cfg(test)]
#[path = "friendly_tests.rs"]
mod tests;
