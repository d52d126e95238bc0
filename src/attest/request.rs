//! What was asked for, as provenance tells it.

use crate::capture::Capture;
use crate::config_source::{config_source, redacted};
use crate::statement::Digests;
use crosskit_llb::names::redacted as redacted_text;
use serde::Serialize;
use std::collections::BTreeMap;

/// Options that say something of this machine or this client, not of the build.
const OF_THE_MACHINE: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

/// The option that holds the context, where no other is named.
const CONTEXT: &str = "context";

/// What was asked of a frontend.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub frontend: String,
    /// Its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Secrets that steps could see, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Lent>,
    /// Agents that steps could use, by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh: Vec<Lent>,
    /// Folders of the client, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locals: Vec<LocalName>,
    /// How the named inputs were made, where that is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, RequestProvenance>,
    /// What the client asked for, where a frontend asked another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Box<RequestProvenance>>,
    /// The behaviour that was asked for; 0 for nothing said.
    #[serde(skip_serializing_if = "is_zero")]
    pub compatibility_version: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Something that a client lent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lent {
    /// Its id.
    pub id: String,
    /// Whether the step would have run without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A folder of a client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalName {
    /// Its name.
    pub name: String,
}

/// What was asked for, and where the instructions came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestProvenance {
    /// Where the instructions came from.
    pub config_source: ConfigSource,
    /// The rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Parameters>,
}

/// Where a build's instructions came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ConfigSource {
    /// An address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Of what was found there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: Digests,
    /// The file in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A frontend's options as provenance may tell them: without those of the machine, and without the secrets in addresses.
pub fn filtered_arguments(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let context = options.get("contextkey").filter(|key| !key.is_empty()).map_or(CONTEXT, String::as_str);
    let told = options
        .iter()
        .filter(|(key, _)| !OF_THE_MACHINE.contains(&key.as_str()) && !key.starts_with("attest:"));
    told.map(|(key, value)| {
        let is_address =
            key == context || key.strip_prefix(CONTEXT).is_some_and(|rest| rest.starts_with(':'));
        (key.clone(), if is_address { redacted(value) } else { redacted_text(value) })
    })
    .collect()
}

impl RequestProvenance {
    /// Of a frontend's name and its options, filtered; what is known of the sources is in `capture`.
    pub fn new(frontend: &str, mut args: BTreeMap<String, String>, capture: &Capture) -> Self {
        let has = |key: &str| args.get(key).filter(|value| !value.is_empty());
        let context = match (has("contextkey"), has("input:context")) {
            (Some(key), _) => key.clone(),
            (None, Some(_)) => "input:context".to_string(),
            (None, None) => CONTEXT.to_string(),
        };
        let mut source = ConfigSource::default();
        if let Some(address) = args.get(&context).filter(|address| !address.is_empty()) {
            source = config_source(address, capture);
            args.remove(&context);
        }
        if let Some(filename) = args.get("filename").filter(|name| !name.is_empty()) {
            source.path.clone_from(filename);
            args.remove("filename");
        }
        let request = Parameters { frontend: frontend.to_string(), args, ..Parameters::default() };
        RequestProvenance { config_source: source, request: Some(request) }
    }
}

impl Parameters {
    /// Takes out what a careless build could have put a secret into. Returns whether something was taken that the
    /// build depends on.
    pub(crate) fn scrub(&mut self) -> bool {
        let before = self.args.len();
        self.args.retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
        let mut incomplete = self.args.len() < before;
        self.secrets.clear();
        self.ssh.clear();
        let others = self.inputs.values_mut().chain(self.root.as_deref_mut());
        for request in others.filter_map(|other| other.request.as_mut()) {
            incomplete |= request.scrub();
        }
        incomplete
    }
}
