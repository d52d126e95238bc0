//! Reads `buildkitd.toml`: checks each key against the schema, and keeps the values by path.

use super::schema::{self, Kind, Support};
use super::units::{self, Space};
use super::{ConfigError, ConfigErrorKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml_edit::{Document as TomlDocument, Item, TableLike, Value};

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// From a Bool key.
    Bool(bool),
    /// From an Int key.
    Int(i64),
    /// From a Text or Label key.
    Text(String),
    /// From a List key.
    List(Vec<String>),
    /// From a Time key.
    Time(Duration),
    /// From a Size key.
    Size(Space),
    /// From a table list: one group of settings each.
    Groups(Vec<Settings>),
}

/// Checked values by their names from the top, joined by `/`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The values.
    pub values: BTreeMap<String, Setting>,
    /// Names of tables that are there, even if empty.
    pub tables: Vec<String>,
}

/// What a file holds, and what should be said about it.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Everything that works.
    pub settings: Settings,
    /// Sentences for the log, each with file and line.
    pub warnings: Vec<String>,
}

/// Reads and checks the text of a config file; `path` is for messages.
///
/// # Errors
/// A file that isn't TOML, a value of the wrong kind, or a key that is known but whose absence
/// would change a result or a protection; all with file and line.
pub fn read(path: &Path, text: &str) -> Result<Document, ConfigError> {
    let parsed = TomlDocument::parse(text).map_err(|e| {
        let line = e.span().map_or(1, |s| line_of(text, s.start));
        error(path, line, ConfigErrorKind::Syntax(e.message().to_string()))
    })?;
    let mut reader = Reader { path: path.to_path_buf(), text, warnings: Vec::new() };
    let settings = reader.table(parsed.as_table(), &mut Vec::new(), &mut Vec::new())?;
    Ok(Document { settings, warnings: reader.warnings })
}

struct Reader<'a> {
    path: PathBuf,
    text: &'a str,
    warnings: Vec<String>,
}

fn error(path: &Path, line: usize, kind: ConfigErrorKind) -> ConfigError {
    ConfigError { path: path.to_path_buf(), line, kind }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

impl Reader<'_> {
    /// Walks one table. `names` lead to it in the schema, `within` to it inside its group.
    fn table(
        &mut self,
        table: &dyn TableLike,
        names: &mut Vec<String>,
        within: &mut Vec<String>,
    ) -> Result<Settings, ConfigError> {
        let mut found = Settings::default();
        for (name, item) in table.iter() {
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let line = span.map_or(1, |s| line_of(self.text, s.start));
            names.push(name.to_string());
            within.push(name.to_string());
            self.item(item, line, names, within, &mut found)?;
            names.pop();
            within.pop();
        }
        Ok(found)
    }

    fn item(
        &mut self,
        item: &Item,
        line: usize,
        names: &mut Vec<String>,
        within: &mut Vec<String>,
        found: &mut Settings,
    ) -> Result<(), ConfigError> {
        let path: Vec<&str> = names.iter().map(String::as_str).collect();
        let shown = path.join(".");
        let Some(key) = schema::find(&path) else {
            let hint = schema::nearest(&path).map_or(String::new(), |n| format!(" (did you mean {n:?}?)"));
            if schema::is_strict(&path) {
                return Err(error(&self.path, line, ConfigErrorKind::Unknown { key: shown, hint }));
            }
            self.warnings.push(format!(
                "{}:{line}: unknown key {shown:?}{hint}; it has no effect",
                self.path.display()
            ));
            return Ok(());
        };
        match key.support {
            Support::Works => {}
            Support::Elsewhere(why) => {
                self.warnings.push(format!("{}:{line}: {shown:?} has no effect: {why}", self.path.display()));
                return Ok(());
            }
            Support::Refused(_) if matches!(item.as_bool(), Some(false)) || item.as_str() == Some("") => {
                return Ok(());
            }
            Support::Refused(why) => {
                return Err(error(&self.path, line, ConfigErrorKind::Unsupported { key: shown, why }));
            }
        }
        let file = self.path.clone();
        let wrong =
            |expected| error(&file, line, ConfigErrorKind::WrongKind { key: shown.clone(), expected });
        let setting = match key.kind {
            Kind::Table => {
                let table = item.as_table_like().ok_or_else(|| wrong("a table"))?;
                found.tables.push(within.join("/"));
                let inner = self.table(table, names, within)?;
                found.values.extend(inner.values);
                found.tables.extend(inner.tables);
                return Ok(());
            }
            Kind::Tables => {
                let mut groups = Vec::new();
                if let Some(tables) = item.as_array_of_tables() {
                    for table in tables {
                        groups.push(self.table(table, names, &mut Vec::new())?);
                    }
                } else if let Some(list) = item.as_array() {
                    for value in list {
                        let table = value.as_inline_table().ok_or_else(|| wrong("a list of tables"))?;
                        groups.push(self.table(table, names, &mut Vec::new())?);
                    }
                } else {
                    return Err(wrong("a list of tables"));
                }
                Setting::Groups(groups)
            }
            Kind::Bool => Setting::Bool(item.as_bool().ok_or_else(|| wrong("true or false"))?),
            Kind::Int => Setting::Int(item.as_integer().ok_or_else(|| wrong("a whole number"))?),
            Kind::Text => Setting::Text(item.as_str().ok_or_else(|| wrong("a string"))?.to_string()),
            Kind::Label => Setting::Text(match item.as_integer() {
                Some(number) => number.to_string(),
                None => item.as_str().ok_or_else(|| wrong("a name or a number"))?.to_string(),
            }),
            Kind::List => Setting::List(strings(item).ok_or_else(|| wrong("a list of strings"))?),
            Kind::Time => Setting::Time(
                match item.as_integer() {
                    Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
                    None => item.as_str().and_then(units::duration),
                }
                .ok_or_else(|| wrong("a duration such as \"48h\", or seconds"))?,
            ),
            Kind::Size => Setting::Size(
                match item.as_integer() {
                    Some(bytes) => (bytes >= 0).then_some(Space::Bytes(bytes)),
                    None => item.as_str().and_then(Space::parse),
                }
                .ok_or_else(|| wrong("an amount of disk such as \"10GB\" or \"20%\", or bytes"))?,
            ),
        };
        found.values.insert(within.join("/"), setting);
        Ok(())
    }
}

fn strings(item: &Item) -> Option<Vec<String>> {
    item.as_array()?.iter().map(|v| v.as_str().map(str::to_string)).collect::<Option<Vec<_>>>().or_else(
        || {
            // Old files list sizes and numbers bare; nothing here does.
            item.as_value().and_then(Value::as_str).map(|s| vec![s.to_string()])
        },
    )
}

impl Settings {
    /// The text at a path.
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.values.get(path) {
            Some(Setting::Text(v)) => Some(v),
            _ => None,
        }
    }

    /// The switch at a path.
    pub fn bool(&self, path: &str) -> Option<bool> {
        match self.values.get(path) {
            Some(Setting::Bool(v)) => Some(*v),
            _ => None,
        }
    }

    /// The number at a path.
    pub fn int(&self, path: &str) -> Option<i64> {
        match self.values.get(path) {
            Some(Setting::Int(v)) => Some(*v),
            _ => None,
        }
    }

    /// The list at a path, empty where there is none.
    pub fn list(&self, path: &str) -> Vec<String> {
        match self.values.get(path) {
            Some(Setting::List(v)) => v.clone(),
            _ => Vec::new(),
        }
    }

    /// The duration at a path.
    pub fn time(&self, path: &str) -> Option<Duration> {
        match self.values.get(path) {
            Some(Setting::Time(v)) => Some(*v),
            _ => None,
        }
    }

    /// The amount of disk at a path.
    pub fn size(&self, path: &str) -> Option<Space> {
        match self.values.get(path) {
            Some(Setting::Size(v)) => Some(*v),
            _ => None,
        }
    }

    /// The table list at a path, empty where there is none.
    pub fn groups(&self, path: &str) -> &[Settings] {
        match self.values.get(path) {
            Some(Setting::Groups(v)) => v,
            _ => &[],
        }
    }

    /// Names directly below a table: `registry` gives the registries.
    pub fn names(&self, table: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let prefix = format!("{table}/");
        for path in self.tables.iter().chain(self.values.keys()) {
            if let Some(name) = path.strip_prefix(&prefix).and_then(|rest| rest.split('/').next())
                && !names.iter().any(|n| n == name)
            {
                names.push(name.to_string());
            }
        }
        names
    }
}
