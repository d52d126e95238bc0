//! Provenance as SLSA v1 has it.

use crate::asked::{Mode, Provenance, Slsa};
use crate::build_config::{BuildConfig, Source, Steps};
use crate::capture::{Capture, Request};
use crate::purl::image_url;
use crate::request::{ConfigSource, Parameters, RequestProvenance};
use crate::statement::{Digests, commit_digest, digests_of};
use crate::{AttestError, Measured, redacted, slsa02};
use crosskit_api::details;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What kind of build it was.
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// Facts about the build itself.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// When it began, RFC 3339.
    pub started: String,
    /// Of this build alone.
    pub invocation: String,
    /// The platform of the builder, formatted.
    pub builder_platform: String,
    /// The version of the builtin Dockerfile frontend, if that was asked.
    pub dockerfile_version: Option<String>,
    /// What the daemon's administrator wants said.
    pub environment: Map<String, Value>,
    /// The behaviour that was asked for.
    pub compatibility_version: u32,
    /// What the machine has done since the build began: a list of moments.
    pub machine: Option<Measured>,
}

/// How a result was made.
#[derive(Debug, Clone)]
pub struct Predicate {
    pub(crate) definition: Definition,
    pub(crate) details: RunDetails,
    slsa: Slsa,
    /// What the machine does, if it is to be told.
    machine: Option<Measured>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Definition {
    build_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resolved_dependencies: Vec<Dependency>,
    pub(crate) external_parameters: External,
    pub(crate) internal_parameters: Internal,
}

/// Something that was used.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Dependency {
    pub(crate) uri: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) digest: Digests,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct External {
    pub(crate) config_source: ConfigSource,
    pub(crate) request: Parameters,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Internal {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build_config: Option<Steps>,
    pub(crate) builder_platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile_version: Option<String>,
    #[serde(flatten)]
    pub(crate) environment: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunDetails {
    pub(crate) builder: Builder,
    pub(crate) metadata: Metadata,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Builder {
    pub(crate) id: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Metadata {
    #[serde(rename = "invocationId")]
    pub(crate) invocation: String,
    #[serde(rename = "startedOn")]
    pub(crate) started: String,
    #[serde(rename = "finishedOn")]
    pub(crate) finished: String,
    #[serde(rename = "buildkit_metadata")]
    pub(crate) more: More,
    #[serde(rename = "crosskit_metadata", skip_serializing_if = "Places::is_empty")]
    pub(crate) places: Places,
    #[serde(rename = "buildkit_hermetic", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) hermetic: bool,
    #[serde(rename = "buildkit_completeness")]
    pub(crate) completeness: Completeness,
    #[serde(rename = "buildkit_reproducible", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) reproducible: bool,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct More {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    vcs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layers: BTreeMap<String, Vec<Value>>,
    /// What the machine did meanwhile.
    #[serde(rename = "sysUsage", skip_serializing_if = "Option::is_none")]
    machine: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkTold>,
}

/// How steps reached the network, where that was not as they liked.
#[derive(Debug, Clone, Serialize)]
struct NetworkTold {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxyTold>,
}

#[derive(Debug, Clone, Serialize)]
struct ProxyTold {
    incomplete: Vec<Request>,
}

impl NetworkTold {
    fn of(capture: &Capture) -> Option<Self> {
        let incomplete = capture.unknown.clone();
        let proxy = (!incomplete.is_empty()).then_some(ProxyTold { incomplete });
        capture.proxied.then_some(NetworkTold { mode: "proxy", proxy })
    }
}

/// Where steps have run, by their names in the graph: those that did not simply run on the builder itself.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Places {
    steps: BTreeMap<String, StepPlace>,
}

impl Places {
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Where a step has run, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepPlace {
    /// The platform of its programs, formatted.
    pub platform: String,
    /// The worker; none if it was the builder itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Whether an emulator ran it rather than a processor.
    pub emulated: bool,
    /// Which one and its version, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emulator: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Completeness {
    pub(crate) request: bool,
    pub(crate) resolved_dependencies: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    build_definition: &'a Definition,
    run_details: &'a RunDetails,
}

impl Predicate {
    /// Of what went into a result. `graph` is asked for where the graph is to be told.
    ///
    /// # Errors
    /// Names that are none, and materials that aren't known exactly where that was asked for.
    pub fn new(
        capture: &Capture,
        asked: &Provenance,
        about: Circumstances,
        graph: impl FnOnce() -> BuildConfig,
    ) -> Result<Self, AttestError> {
        if asked.complete_materials && !capture.is_complete() {
            return Err(incomplete(capture));
        }
        let mut request = capture.request.clone();
        let told = RequestProvenance::new(&request.frontend, std::mem::take(&mut request.args), capture);
        request.args = told.request.map(|request| request.args).unwrap_or_default();
        let mut vcs = BTreeMap::new();
        request.args.retain(|key, value| match key.strip_prefix("vcs:") {
            None => true,
            Some(name) => {
                let value = if name == "source" { redacted(value) } else { value.clone() };
                if !value.is_empty() {
                    vcs.insert(name.to_string(), value);
                }
                false
            }
        });
        request.locals.clone_from(&capture.locals);
        request.compatibility_version = about.compatibility_version;
        let mut completeness = Completeness {
            request: !request.frontend.is_empty(),
            resolved_dependencies: capture.is_complete(),
        };
        let mut more = More { vcs, network: NetworkTold::of(capture), ..More::default() };
        let mut build_config = None;
        match asked.mode {
            Mode::Min => completeness.request &= !request.scrub(),
            Mode::Max => {
                let mut graph = graph();
                if asked.capture_usage {
                    graph.steps.tell_usage(&capture.used);
                }
                build_config = Some(graph.steps);
                more.source = graph.source;
            }
        }
        let definition = Definition {
            build_type: BUILD_TYPE,
            resolved_dependencies: dependencies(capture)?,
            external_parameters: External { config_source: told.config_source, request },
            internal_parameters: Internal {
                build_config,
                builder_platform: about.builder_platform,
                dockerfile_version: about.dockerfile_version,
                environment: about.environment,
            },
        };
        let metadata = Metadata {
            invocation: about.invocation,
            started: about.started,
            finished: String::new(),
            more,
            places: Places::default(),
            hermetic: capture.is_complete() && !capture.network,
            completeness,
            reproducible: asked.reproducible,
        };
        let details = RunDetails { builder: Builder { id: asked.builder_id.clone() }, metadata };
        let machine = about.machine.filter(|_| asked.capture_usage);
        Ok(Predicate { definition, details, slsa: asked.slsa, machine })
    }

    /// The type of what is told.
    pub fn predicate_type(&self) -> &'static str {
        self.slsa.predicate_type()
    }

    /// Whether the graph is told, so that something can be said of its steps.
    pub fn tells_steps(&self) -> bool {
        self.definition.internal_parameters.build_config.is_some()
    }

    /// The name of a step, where the graph is told.
    pub fn step(&self, digest: &str) -> Option<&str> {
        self.definition.internal_parameters.build_config.as_ref()?.name(digest)
    }

    /// Says where a step has run, by its digest, if the graph is told.
    pub fn place(&mut self, digest: &str, place: StepPlace) {
        if let Some(name) = self.step(digest).map(str::to_string) {
            self.details.metadata.places.steps.insert(name, place);
        }
    }

    /// As JSON. `finished` is when the build was over, RFC 3339; `layers` are chains of layers' descriptors by outputs of
    /// steps, `stepN:M`.
    pub fn to_json(&self, finished: &str, layers: BTreeMap<String, Vec<Value>>) -> Vec<u8> {
        let mut details = self.details.clone();
        details.metadata.finished = finished.to_string();
        details.metadata.more.layers = layers;
        details.metadata.more.machine = self.machine.as_ref().map(Measured::tell);
        let written = match self.slsa {
            Slsa::V1 => crosskit_images::gojson::to_vec(&Written {
                build_definition: &self.definition,
                run_details: &details,
            }),
            Slsa::V02 => crosskit_images::gojson::to_vec(&slsa02::Written::of(&self.definition, &details)),
        };
        // Nothing in it can fail to be written: all keys are strings.
        written.unwrap_or_default()
    }
}

fn dependencies(capture: &Capture) -> Result<Vec<Dependency>, AttestError> {
    let mut all = Vec::new();
    let kind = |local: bool| if local { "oci" } else { "docker" };
    let known = |digest: &str| digests_of(&[digest]);
    for image in &capture.images {
        let uri = image_url(kind(image.local), &image.reference, image.platform.as_ref(), &[])?;
        all.push(Dependency { uri, digest: known(&image.digest) });
    }
    for blob in &capture.blobs {
        let uri = image_url(kind(blob.local), &blob.reference, None, &[("ref_type", "blob")])?;
        all.push(Dependency { uri, digest: known(&blob.digest) });
    }
    for git in &capture.git {
        all.push(Dependency { uri: git.url.clone(), digest: commit_digest(&git.commit) });
        let bundle = git.bundle.as_deref().and_then(|bundle| {
            let (scheme, rest) = bundle.split_once("://")?;
            let (name, digest) = rest.rsplit_once('@')?;
            Some((scheme, name, digest))
        });
        if let Some((scheme, name, digest)) = bundle {
            let local = scheme.starts_with("oci-layout");
            let more = [("ref_type", "bundle"), ("vcs_url", git.url.as_str())];
            let uri = image_url(kind(local), name, None, &more)?;
            all.push(Dependency { uri, digest: known(digest) });
        }
    }
    for file in &capture.http {
        all.push(Dependency { uri: file.url.clone(), digest: known(&file.digest) });
    }
    Ok(all)
}

/// That not everything is known exactly, with all that isn't.
fn incomplete(capture: &Capture) -> AttestError {
    let mut message =
        "provenance materials are incomplete\n\nThe build requested complete provenance materials, \
        but not all dependencies could be captured."
            .to_string();
    let mut told = details::ProvenanceMaterialsIncomplete::default();
    if !capture.locals.is_empty() {
        message.push_str("\n\nUncaptured local sources:");
    }
    for local in &capture.locals {
        let name = if local.name.is_empty() { "<unnamed>" } else { &local.name };
        message.push_str(&format!("\n  - {name}\n    reason: local_source"));
        told.incomplete.push(details::ProvenanceMaterialIncomplete {
            name: local.name.clone(),
            reason: "local_source".into(),
            ..details::ProvenanceMaterialIncomplete::default()
        });
    }
    if !capture.unknown.is_empty() {
        message.push_str("\n\nUncaptured requests:");
    }
    for Request { op, uri, method, reason, name } in &capture.unknown {
        let known = [name, op, uri].into_iter().find(|text| !text.is_empty());
        message.push_str(&format!("\n  - {}", known.map_or("<unnamed>", String::as_str)));
        for (what, text) in [("method", method), ("url", uri), ("reason", reason)] {
            if !text.is_empty() {
                message.push_str(&format!("\n    {what}: {text}"));
            }
        }
        told.incomplete.push(details::ProvenanceMaterialIncomplete {
            op: op.clone(),
            name: name.clone(),
            method: method.clone(),
            uri: uri.clone(),
            reason: reason.clone(),
            ..details::ProvenanceMaterialIncomplete::default()
        });
    }
    AttestError::Incomplete { message, details: told }
}
