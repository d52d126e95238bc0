//! `--name=value` words of an instruction.

use crate::error::{DockerfileError, Result};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true` or `=false`.
    Bool,
    /// One value.
    Value,
    /// A value, any number of times.
    Values,
}

/// The flags that an instruction was given.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Checks words against what the instruction knows.
    pub fn read(words: &[String], known: &[(&'static str, Takes)]) -> Result<Flags> {
        let mut flags = Flags::default();
        for word in words {
            if word == "--" {
                break;
            }
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word.as_str(), None),
            };
            let Some(bare) = flag.strip_prefix("--") else {
                return Err(DockerfileError::user(format!("arg should start with -- : {word}")));
            };
            let Some((name, takes)) = known.iter().find(|(name, _)| *name == bare) else {
                let error = DockerfileError::user(format!("unknown flag: {flag}"));
                return Err(error.suggest(bare, known.iter().map(|(name, _)| *name)));
            };
            if *takes != Takes::Values && flags.given.iter().any(|(given, _)| given == name) {
                return Err(DockerfileError::user(format!("duplicate flag specified: {flag}")));
            }
            let missing = || DockerfileError::user(format!("missing a value on flag: {flag}"));
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some("")) => return Err(missing()),
                (Takes::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    lower @ ("true" | "false") => lower.to_owned(),
                    _ => {
                        let message = format!("expecting boolean value for flag {flag}, not: {value}");
                        return Err(DockerfileError::user(message));
                    }
                },
                (_, value) => value.ok_or_else(missing)?.to_owned(),
            };
            flags.given.push((name, value));
        }
        Ok(flags)
    }

    /// Refuses all flags.
    pub fn none(words: &[String]) -> Result<()> {
        Flags::read(words, &[]).map(|_| ())
    }

    /// The value; empty when it was not given.
    pub fn value(&self, name: &str) -> String {
        self.values(name).last().unwrap_or_default()
    }

    /// All values.
    pub fn values<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = String> + 'a {
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.clone())
    }

    /// The setting, none when it was not given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.values(name).last().map(|value| value == "true")
    }
}
