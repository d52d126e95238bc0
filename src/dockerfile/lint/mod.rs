//! Advice about a Dockerfile that is valid as it is.

pub(crate) mod casing;
pub(crate) mod rules;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{DockerfileError, Lines, Result};
use crate::text::directives::DirectiveReader;
use crate::text::{quote, units};

/// One piece of advice that can be given.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// What `# check=skip=…` calls it.
    pub name: &'static str,
    /// Why it is good advice.
    pub description: &'static str,
    /// Where more is said; empty where nothing is.
    pub url: &'static str,
    /// Whether it has to be asked for.
    pub experimental: bool,
}

/// Advice given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: &'static Rule,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

impl Warning {
    /// The one line that progress shows.
    pub fn short(&self) -> String {
        let Warning { rule, message, lines } = self;
        match lines.first {
            0 => format!("{}: {message}", rule.name),
            line => format!("{}: {message} (line {line})", rule.name),
        }
    }
}

/// Which rules hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LintConfig {
    skip_all: bool,
    skip: BTreeSet<String>,
    experimental_all: bool,
    experimental: BTreeSet<String>,
    /// Whether a warning fails the build.
    pub error: bool,
}

impl LintConfig {
    /// `skip=A,B;experimental=C;error=true`.
    pub fn parse(text: &str) -> Result<LintConfig> {
        let mut config = LintConfig::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(config);
        }
        for part in text.splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                let message = format!("invalid check option {}", quote::go_quote(part));
                return Err(DockerfileError::user(message));
            };
            let value = value.trim();
            let list = || value.split(',').map(|rule| rule.trim().to_owned());
            match key.trim() {
                "skip" if value == "all" => config.skip_all = true,
                "skip" => config.skip = list().collect(),
                "experimental" if value == "all" => config.experimental_all = true,
                "experimental" => config.experimental = list().collect(),
                "error" => match units::go_bool(value) {
                    Some(error) => config.error = error,
                    None => {
                        let message = format!(
                            "failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax",
                            quote::go_quote(part),
                            quote::go_quote(value)
                        );
                        return Err(DockerfileError::user(message));
                    }
                },
                key => {
                    let message = format!("invalid check option {}", quote::go_quote(key));
                    return Err(DockerfileError::user(message));
                }
            }
        }
        Ok(config)
    }

    fn add(&mut self, other: LintConfig) {
        self.skip_all |= other.skip_all;
        self.skip.extend(other.skip);
        self.experimental_all |= other.experimental_all;
        self.experimental.extend(other.experimental);
    }

    fn holds(&self, rule: &Rule) -> bool {
        match rule.experimental {
            true => self.experimental_all || self.experimental.contains(rule.name),
            false => !self.skip_all && !self.skip.contains(rule.name),
        }
    }
}

/// Collects warnings. Clones share what is collected.
#[derive(Debug, Clone)]
pub struct Linter {
    config: Arc<LintConfig>,
    found: Option<Arc<Mutex<Vec<Warning>>>>,
}

impl Linter {
    /// With these rules.
    pub fn new(config: LintConfig) -> Self {
        Linter { config: Arc::new(config), found: Some(Arc::default()) }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Linter { config: Arc::default(), found: None }
    }

    /// The same rules, with those that `check=` in comments adds.
    pub(crate) fn for_comments(&self, comments: &[String]) -> Linter {
        if self.found.is_none() {
            return self.clone();
        }
        for comment in comments {
            let Ok(Some(found)) = DirectiveReader::default().read(comment, "") else {
                continue;
            };
            if found.name != "check" {
                continue;
            }
            let Ok(more) = LintConfig::parse(found.value.split(' ').next().unwrap_or_default()) else {
                break;
            };
            let mut config = LintConfig::clone(&self.config);
            config.add(more);
            return Linter { config: Arc::new(config), found: self.found.clone() };
        }
        self.clone()
    }

    /// Whether anyone listens.
    pub(crate) fn listens(&self) -> bool {
        self.found.is_some()
    }

    /// Gives advice, if the rule holds.
    pub(crate) fn warn(&self, rule: &'static Rule, lines: Lines, message: String) {
        if let Some(found) = self.found.as_ref().filter(|_| self.config.holds(rule)) {
            found.lock().unwrap_or_else(PoisonError::into_inner).push(Warning { rule, message, lines });
        }
    }

    /// What was found so far.
    pub fn take(&self) -> Vec<Warning> {
        let found = self.found.as_ref();
        found
            .map(|found| std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner)))
            .unwrap_or_default()
    }

    /// The error that warnings are where they are not allowed.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(found) = self.found.as_ref().filter(|_| self.config.error) else {
            return Ok(());
        };
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_empty() {
            return Ok(());
        }
        let mut names: Vec<&str> = Vec::new();
        for warning in found.iter() {
            if !names.contains(&warning.rule.name) {
                names.push(warning.rule.name);
            }
        }
        let message = format!("lint violation found for rules: {}", names.join(", "));
        Err(DockerfileError::user(message))
    }
}
