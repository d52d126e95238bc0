//! The graph of a result, and the files that it was written in, as provenance tells them.

use crate::Measured;
use crosskit_api::graph_json;
use crosskit_api::pb::{self, file_action::Action, op::Op};
use crosskit_llb::Digest;
use crosskit_llb::names::redacted;
use prost::Message as _;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Attributes of sources that are different in every build.
const OF_ONE_BUILD: [&str; 2] = ["local.session", "local.unique"];

/// The steps of a graph, inputs first.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Steps {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    llb_definition: Vec<Step>,
    /// Names of the steps, by their digests.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest_mapping: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize)]
struct Step {
    id: String,
    op: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    /// What it has used, where that is told.
    #[serde(rename = "resourceUsage", skip_serializing_if = "Option::is_none")]
    used: Option<Value>,
}

/// What a result was made by and written in.
#[derive(Debug, Clone, Default)]
pub struct BuildConfig {
    /// The graph.
    pub steps: Steps,
    /// The files.
    pub source: Option<Source>,
}

/// Files, and which step is written where in them.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    locations: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    infos: Vec<SourceFile>,
}

#[derive(Debug, Clone, Serialize)]
struct SourceFile {
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
    /// In base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(flatten)]
    steps: Steps,
}

impl Steps {
    /// The name of a step.
    pub fn name(&self, digest: &str) -> Option<&str> {
        self.digest_mapping.get(digest).map(String::as_str)
    }

    /// Tells what steps have used.
    pub(crate) fn tell_usage(&mut self, used: &BTreeMap<String, Measured>) {
        for (digest, measured) in used {
            let name = self.digest_mapping.get(digest);
            // They are in order of their numbers.
            let number = name.and_then(|name| name.strip_prefix("step")?.parse::<usize>().ok());
            if let Some(step) = number.and_then(|number| self.llb_definition.get_mut(number)) {
                step.used = Some(measured.tell());
            }
        }
    }

    fn of(definition: Option<&pb::Definition>) -> Self {
        let Some(definition) = definition else { return Steps::default() };
        let mut ops: HashMap<String, pb::Op> = HashMap::new();
        let mut last = None;
        for bytes in &definition.def {
            let Ok(op) = pb::Op::decode(bytes.as_slice()) else { return Steps::default() };
            let digest = Digest::of(bytes).to_string();
            ops.insert(digest.clone(), op);
            last = Some(digest);
        }
        let Some(last) = last else { return Steps::default() };
        let order = inputs_first(&ops, last);
        let numbers: HashMap<&str, usize> =
            order.iter().enumerate().map(|(number, digest)| (digest.as_str(), number)).collect();
        let name = |number: usize| format!("step{number}");
        let mut steps = Steps::default();
        for (number, digest) in order.iter().enumerate() {
            let Some(op) = ops.get(digest) else { continue };
            let mut op = op.clone();
            let number_of =
                |input: &pb::Input| numbers.get(input.digest.as_str()).copied().unwrap_or_default();
            let inputs = op.inputs.iter().map(|i| format!("{}:{}", name(number_of(i)), i.index)).collect();
            op.inputs.clear();
            match &mut op.op {
                Some(Op::Source(source)) => {
                    source.attrs.retain(|key, _| !OF_ONE_BUILD.contains(&key.as_str()));
                }
                Some(Op::File(file)) => {
                    for action in &mut file.actions {
                        if let Some(Action::Mkfile(written)) = &mut action.action {
                            written.data = redacted_bytes(&written.data);
                        }
                    }
                }
                _ => {}
            }
            let mut op = graph_json::op(&op);
            redact(&mut op);
            steps.llb_definition.push(Step { id: name(number), op, inputs, used: None });
            steps.digest_mapping.insert(digest.clone(), name(number));
        }
        steps
    }
}

/// Takes names and passwords out of addresses, wherever they are: in sources, variables, commands, proxies.
fn redact(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("://") => *text = redacted(text),
        Value::Array(all) => all.iter_mut().for_each(redact),
        Value::Object(all) => all.values_mut().for_each(redact),
        _ => {}
    }
}

/// The same for the content of a file, if it is text.
fn redacted_bytes(bytes: &[u8]) -> Vec<u8> {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.to_vec(), |text| redacted(text).into_bytes())
}

/// The digests of all that `last` needs, each after those that it needs itself.
fn inputs_first(ops: &HashMap<String, pb::Op>, last: String) -> Vec<String> {
    let mut order = Vec::with_capacity(ops.len());
    let mut seen = std::collections::HashSet::from([last.clone()]);
    let mut stack = vec![(last, 0)];
    while let Some((digest, next)) = stack.last_mut() {
        match ops.get(digest.as_str()).and_then(|op| op.inputs.get(*next)) {
            Some(input) => {
                *next += 1;
                if ops.contains_key(&input.digest) && seen.insert(input.digest.clone()) {
                    stack.push((input.digest.clone(), 0));
                }
            }
            None => order.extend(stack.pop().map(|(digest, _)| digest)),
        }
    }
    order
}

impl BuildConfig {
    /// Of a result's graph.
    pub fn of(definition: &pb::Definition) -> Self {
        let steps = Steps::of(Some(definition));
        let Some(source) = &definition.source else { return BuildConfig { steps, source: None } };
        let infos: Vec<SourceFile> = source
            .infos
            .iter()
            .map(|info| SourceFile {
                filename: info.filename.clone(),
                language: info.language.clone(),
                data: graph_json::base64(&redacted_bytes(&info.data)),
                steps: Steps::of(info.definition.as_ref()),
            })
            .collect();
        if infos.is_empty() {
            return BuildConfig { steps, source: None };
        }
        let of_step = |(digest, locations): (&String, &pb::Locations)| {
            Some((steps.name(digest)?.to_string(), graph_json::locations(locations)))
        };
        let locations = source.locations.iter().filter_map(of_step).collect();
        BuildConfig { source: Some(Source { locations, infos }), steps }
    }
}
