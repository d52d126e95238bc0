//! Which sources is a rule for.

use crate::PolicyError;
use crosskit_api::pb::SourceOp;
use crosskit_api::sourcepolicy::{self as wire, AttrConstraint, AttrMatch, MatchType};
use regex::bytes::{Regex, RegexBuilder};
use std::sync::OnceLock;

/// How large a compiled pattern may become, in bytes. Policies come from outside.
const LARGEST_PATTERN: usize = 1 << 20;

/// What a rule selects sources by. Patterns are compiled when they are needed first.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) identifier: String,
    match_type: i32,
    constraints: Vec<Constraint>,
    pattern: OnceLock<Result<Regex, String>>,
}

/// A condition on an attribute.
#[derive(Debug)]
struct Constraint {
    told: AttrConstraint,
    pattern: OnceLock<Result<Regex, String>>,
}

/// Go's syntax without Unicode classes, as `\w` means ASCII there, too.
fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).unicode(false).size_limit(LARGEST_PATTERN).build().map_err(|e| e.to_string())
}

/// The pattern of an identifier in which every `*` stands for any text, which can be referred to by its number.
fn wildcard(identifier: &str) -> Result<Regex, String> {
    if identifier.contains("**") {
        return Err(format!(
            "failed to translate wildcard {identifier:?} to regexp: invalid wildcard: \"**\""
        ));
    }
    let parts: Vec<String> = identifier.split('*').map(regex::escape).collect();
    // What is no ASCII has to be compared as the bytes that it is.
    compile(&format!("^{}$", parts.join("(.*)")))
}

impl Selector {
    pub(crate) fn new(told: wire::Selector) -> Self {
        let constraint = |told| Constraint { told, pattern: OnceLock::new() };
        Selector {
            identifier: told.identifier,
            match_type: told.match_type,
            constraints: told.constraints.into_iter().map(constraint).collect(),
            pattern: OnceLock::new(),
        }
    }

    fn match_type(&self) -> Result<MatchType, String> {
        MatchType::try_from(self.match_type).map_err(|_| format!("unknown match type: {}", self.match_type))
    }

    fn pattern(&self) -> Result<&Regex, String> {
        let compiled = self.pattern.get_or_init(|| match self.match_type()? {
            MatchType::Wildcard => wildcard(&self.identifier),
            MatchType::Regex => compile(&self.identifier),
            MatchType::Exact => compile(&format!("^{}$", regex::escape(&self.identifier))),
        });
        compiled.as_ref().map_err(Clone::clone)
    }

    /// Whether the rule is for a source.
    pub(crate) fn matches(&self, source: &SourceOp) -> Result<bool, PolicyError> {
        self.compare(source).map_err(PolicyError::Match)
    }

    fn compare(&self, source: &SourceOp) -> Result<bool, String> {
        for constraint in &self.constraints {
            if !constraint.holds(source)? {
                return Ok(false);
            }
        }
        if self.identifier == source.identifier {
            return Ok(true);
        }
        match self.match_type()? {
            MatchType::Exact => Ok(false),
            MatchType::Wildcard | MatchType::Regex => {
                Ok(self.pattern()?.is_match(source.identifier.as_bytes()))
            }
        }
    }

    /// What a conversion to `to` makes of the identifier of a source that this selects: `${1}` there stands for
    /// what the first `*` or group has matched. A regular expression replaces what it matches and leaves the rest.
    pub(crate) fn convert(&self, identifier: &str, to: &str) -> Result<String, PolicyError> {
        self.replace(identifier, to)
            .map_err(|why| PolicyError::Convert(format!("error formatting destination: {why}")))
    }

    fn replace(&self, identifier: &str, to: &str) -> Result<String, String> {
        let bytes = match self.match_type()? {
            MatchType::Exact => return Ok(to.to_owned()),
            MatchType::Regex => {
                self.pattern()?.replace_all(identifier.as_bytes(), to.as_bytes()).into_owned()
            }
            MatchType::Wildcard => {
                let Some(found) = self.pattern()?.captures(identifier.as_bytes()) else {
                    return Ok(identifier.to_owned());
                };
                let mut out = Vec::new();
                found.expand(to.as_bytes(), &mut out);
                out
            }
        };
        String::from_utf8(bytes).map_err(|_| format!("{to:?} of {identifier:?} is no text"))
    }
}

impl Constraint {
    fn holds(&self, source: &SourceOp) -> Result<bool, String> {
        let AttrConstraint { key, value, condition } = &self.told;
        let found = source.attrs.get(key).map_or("", String::as_str);
        match AttrMatch::try_from(*condition).map_err(|_| format!("unknown attr condition: {condition}"))? {
            AttrMatch::Equal => Ok(found == value),
            AttrMatch::Notequal => Ok(found != value),
            AttrMatch::Matches => match self.pattern.get_or_init(|| compile(value)) {
                Ok(pattern) => Ok(pattern.is_match(found.as_bytes())),
                Err(why) => Err(format!("invalid regex {value:?}: {why}")),
            },
        }
    }
}
