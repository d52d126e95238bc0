//! A file that describes devices, in JSON or YAML.

use super::edits::Edits;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use yaml_rust2::{Yaml, YamlLoader};

/// Bytes of a file at most; those that drivers write have some hundred kilobytes.
const MAX_FILE: u64 = 8 << 20;

/// Versions of the format, oldest first.
const VERSIONS: [&str; 10] =
    ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// A whole file (CDI specification, `Spec`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpecFile {
    cdi_version: String,
    pub(super) kind: String,
    #[serde(default, deserialize_with = "annotations")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<DeviceEntry>,
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// One device of a file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceEntry {
    #[serde(deserialize_with = "text")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "annotations")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) container_edits: Edits,
}

impl SpecFile {
    /// Reads a file and checks it.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
        if text.len() as u64 > MAX_FILE {
            return Err(format!("the file is larger than {MAX_FILE} bytes"));
        }
        let value = match path.extension().is_some_and(|e| e == "json") {
            true => serde_json::from_str(&text).map_err(|e| e.to_string())?,
            false => yaml(&text)?,
        };
        let spec: SpecFile = serde_json::from_value(value).map_err(|e| e.to_string())?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.trim_start_matches('v');
        let position = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
        let given = position(version).ok_or_else(|| format!("invalid version {:?}", self.cdi_version))?;
        let needed = self.needed_version();
        if position(needed).is_some_and(|needed| given < needed) {
            return Err(format!("the spec version must be at least v{needed}"));
        }
        let (vendor, class) = self
            .kind
            .split_once('/')
            .ok_or_else(|| format!("invalid kind {:?}: not vendor/class", self.kind))?;
        check_name("vendor", vendor, "_-.", false)?;
        check_name("class", class, "_-.", false)?;
        self.container_edits.check()?;
        if self.devices.is_empty() {
            return Err("invalid spec, no devices".to_owned());
        }
        for (at, device) in self.devices.iter().enumerate() {
            check_name("device name", &device.name, "_-.:", true)?;
            if self.devices[..at].iter().any(|other| other.name == device.name) {
                return Err(format!("invalid spec, multiple device {:?}", device.name));
            }
            if device.container_edits == Edits::default() {
                return Err(format!("invalid device {:?}, empty device edits", device.name));
            }
            device
                .container_edits
                .check()
                .map_err(|why| format!("invalid device {:?}: {why}", device.name))?;
        }
        Ok(())
    }

    /// The oldest version with all that the file uses.
    fn needed_version(&self) -> &'static str {
        let edits = || self.devices.iter().map(|d| &d.container_edits).chain([&self.container_edits]);
        let annotated =
            !self.annotations.is_empty() || self.devices.iter().any(|d| !d.annotations.is_empty());
        let dotted = self.kind.split_once('/').is_some_and(|(_, class)| class.contains('.'));
        let numbered = self.devices.iter().any(|d| d.name.starts_with(|c: char| c.is_ascii_digit()));
        if edits().any(Edits::needs_1_1) {
            "1.1.0"
        } else if edits().any(|e| e.intel_rdt.is_some() || !e.additional_gids.is_empty()) {
            "0.7.0"
        } else if annotated || dotted {
            "0.6.0"
        } else if numbered || edits().any(|e| e.device_nodes.iter().any(|d| !d.host_path.is_empty())) {
            "0.5.0"
        } else if edits().any(|e| e.mounts.iter().any(|m| !m.kind.is_empty())) {
            "0.4.0"
        } else {
            "0.3.0"
        }
    }
}

fn check_name(what: &str, name: &str, within: &str, digit_first: bool) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || within.contains(c);
    let first = |c: char| c.is_ascii_alphabetic() || (digit_first && c.is_ascii_digit());
    let fits = name.starts_with(first)
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inner);
    if fits { Ok(()) } else { Err(format!("invalid {what} {name:?}")) }
}

/// A text, also where YAML has read it as something else: `autoallow: true`, `name: 0`.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    as_text(Value::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn annotations<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let given = Option::<Map<String, Value>>::deserialize(from)?.unwrap_or_default();
    let pair = |(name, value)| as_text(value).map(|value| (name, value));
    given.into_iter().map(pair).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

fn as_text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        other => Err(format!("expected a text, not {other}")),
    }
}

/// The one document of a YAML text.
fn yaml(text: &str) -> Result<Value, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|e| e.to_string())?;
    match documents.as_slice() {
        [one] => json(one),
        many => Err(format!("expected one document, not {}", many.len())),
    }
}

fn json(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::String(text) => Value::String(text.clone()),
        Yaml::Boolean(value) => Value::Bool(*value),
        Yaml::Integer(value) => Value::from(*value),
        Yaml::Real(text) => Value::from(text.parse::<f64>().map_err(|e| format!("{text}: {e}"))?),
        Yaml::Null => Value::Null,
        Yaml::Array(all) => Value::Array(all.iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Hash(pairs) => {
            let pair = |(name, value): (&Yaml, &Yaml)| match json(name)? {
                Value::String(name) => Ok((name, json(value)?)),
                other => Err(format!("a name must be a text, not {other}")),
            };
            Value::Object(pairs.iter().map(pair).collect::<Result<_, String>>()?)
        }
        Yaml::Alias(_) | Yaml::BadValue => return Err("a value that cannot be read".to_owned()),
    })
}
