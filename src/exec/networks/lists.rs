//! Descriptions of networks: which plugins are called, in which order, with what (CNI spec 1.0 §1).

use std::{fs, io::Read, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::setup;
use crate::{Result, error::file_error};

/// The version that a description is of which names none.
const OLDEST_VERSION: &str = "0.1.0";
/// The first version whose plugins are told at the end what came of the beginning (CNI spec 0.4.0 §DEL).
const TOLD_RESULTS: (u64, u64) = (0, 4);
/// More than any description has, in bytes.
const LIMIT: u64 = 1 << 20;

/// A network: plugins in the order in which they are called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NetworkList {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The configuration of each, as it was written; never empty, and each has a `type`.
    pub(crate) plugins: Vec<Map<String, Value>>,
}

impl NetworkList {
    /// Reads a file with a list, or with the configuration of a single plugin.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| file.take(LIMIT).read_to_string(&mut text))
            .map_err(file_error("reading the network configuration", path))?;
        Self::parse(&text).map_err(|why| setup("reading the network configuration", path, why))
    }

    /// Reads the text of such a file; an error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut whole: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"))?;
        let text =
            |of: &Map<String, Value>, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text(&whole, "name").unwrap_or_default();
        let version = text(&whole, "cniVersion").filter(|version| !version.is_empty());
        let plugins = match whole.remove("plugins") {
            Some(Value::Array(plugins)) => plugins
                .into_iter()
                .map(|plugin| match plugin {
                    Value::Object(plugin) => Ok(plugin),
                    other => Err(format!("{other} in \"plugins\" is no object")),
                })
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err("\"plugins\" is no list".to_owned()),
            None => vec![whole],
        };
        if plugins.is_empty() {
            return Err("\"plugins\" is empty".to_owned());
        }
        for plugin in &plugins {
            let kind = text(plugin, "type").unwrap_or_default();
            if kind.is_empty() || kind.contains('/') || kind.starts_with('.') {
                return Err(format!("\"type\" of a plugin is {kind:?}; it takes the name of a program"));
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
            return Err(format!("\"name\" is {name:?}; it takes letters, digits, \"-\", \"_\" and \".\""));
        }
        Ok(Self { name, version: version.unwrap_or_else(|| OLDEST_VERSION.to_owned()), plugins })
    }

    /// What a plugin of the list is given: its configuration with the list's name and version, and what came before.
    pub(crate) fn given(&self, plugin: &Map<String, Value>, previous: Option<&Value>) -> Value {
        let mut given = plugin.clone();
        given.insert("name".to_owned(), json!(self.name));
        given.insert("cniVersion".to_owned(), json!(self.version));
        given.remove("prevResult");
        if let Some(previous) = previous {
            given.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(given)
    }

    /// Whether plugins are told at the end what came of the beginning.
    pub(crate) fn tells_results(&self) -> bool {
        let mut numbers = self.version.split('.').map(|number| number.parse::<u64>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= TOLD_RESULTS
    }
}

/// The program of a plugin.
pub(crate) fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}
