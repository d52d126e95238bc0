//! Source policies in files, as JSON.

use crate::error::ClientError;
use crosskit_api::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Number(i32),
    Text(String),
}

#[derive(Deserialize)]
struct PolicyFile {
    #[serde(default, alias = "Version")]
    version: i64,
    #[serde(default, alias = "Rules")]
    rules: Vec<RuleFile>,
}

#[derive(Deserialize)]
struct RuleFile {
    #[serde(alias = "Action")]
    action: Option<Named>,
    #[serde(alias = "Selector")]
    selector: Option<SelectorFile>,
    #[serde(alias = "Updates")]
    updates: Option<UpdateFile>,
}

#[derive(Deserialize)]
struct SelectorFile {
    #[serde(default, alias = "Identifier")]
    identifier: String,
    #[serde(alias = "matchType")]
    match_type: Option<Named>,
    #[serde(default, alias = "Constraints")]
    constraints: Vec<ConstraintFile>,
}

#[derive(Deserialize)]
struct ConstraintFile {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    condition: Option<Named>,
}

#[derive(Deserialize)]
struct UpdateFile {
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// Reads a policy.
///
/// # Errors
/// No JSON, or a word that no policy knows.
pub(crate) fn parse(file: &str, json: &[u8]) -> Result<Policy, ClientError> {
    let bad =
        |why: String| ClientError::invalid(format!("failed to unmarshal source-policy-file {file:?}: {why}"));
    let policy: PolicyFile = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
    let number = |value: Option<Named>, what: &str, find: fn(&str) -> Option<i32>| match value {
        None => Ok(0),
        Some(Named::Number(n)) => Ok(n),
        Some(Named::Text(text)) => find(&text).ok_or_else(|| bad(format!("unknown {what} {text:?}"))),
    };
    let mut rules = Vec::with_capacity(policy.rules.len());
    for rule in policy.rules {
        let action = number(rule.action, "action", |t| PolicyAction::from_str_name(t).map(|a| a as i32))?;
        let selector = match rule.selector {
            None => None,
            Some(selector) => {
                let match_type = number(selector.match_type, "match type", |t| {
                    MatchType::from_str_name(t).map(|m| m as i32)
                })?;
                let mut constraints = Vec::new();
                for c in selector.constraints {
                    let condition =
                        number(c.condition, "condition", |t| AttrMatch::from_str_name(t).map(|m| m as i32))?;
                    constraints.push(AttrConstraint { key: c.key, value: c.value, condition });
                }
                Some(Selector { identifier: selector.identifier, match_type, constraints })
            }
        };
        let updates = rule.updates.map(|u| Update { identifier: u.identifier, attrs: u.attrs });
        rules.push(Rule { action, selector, updates });
    }
    Ok(Policy { version: policy.version, rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        let json = br#"{"rules":[{"action":"CONVERT","selector":{"identifier":"docker-image://*","match_type":"WILDCARD",
            "constraints":[{"key":"k","value":"v","condition":"NOTEQUAL"}]},"updates":{"identifier":"x","attrs":{"a":"b"}}},{"action":1}]}"#;
        let policy = parse("p.json", json).unwrap();
        assert_eq!(policy.rules[0].action, PolicyAction::Convert as i32);
        assert_eq!(
            policy.rules[0].selector.as_ref().unwrap().constraints[0].condition,
            AttrMatch::Notequal as i32
        );
        assert_eq!(policy.rules[1].action, PolicyAction::Deny as i32);
        let told = parse("p.json", br#"{"rules":[{"action":"MAYBE"}]}"#).unwrap_err().to_string();
        assert_eq!(told, r#"failed to unmarshal source-policy-file "p.json": unknown action "MAYBE""#);
    }
}
