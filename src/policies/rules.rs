//! Rules that came with a request.

use crate::PolicyError;
use crate::selectors::Selector;
use crosskit_api::pb::SourceOp;
use crosskit_api::sourcepolicy::{Policy, PolicyAction, Rule as WireRule, Update};
use std::sync::Arc;

/// How often one source may be converted. More is taken for a circle.
pub const MAX_CONVERSIONS: usize = 20;

/// Policies in their order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Policies(Vec<Arc<[Rule]>>);

#[derive(Debug)]
struct Rule {
    action: i32,
    selector: Selector,
    updates: Option<Update>,
}

impl Policies {
    /// Policies as a request has them.
    ///
    /// # Errors
    /// A rule without a selector. What else is wrong with a rule is told when it would decide about a source.
    pub fn new(told: Vec<Policy>) -> Result<Self, PolicyError> {
        let read = |rule: WireRule| {
            let selector = rule.selector.ok_or(PolicyError::NoSelector)?;
            Ok(Rule { action: rule.action, selector: Selector::new(selector), updates: rule.updates })
        };
        let policy = |policy: Policy| policy.rules.into_iter().map(read).collect();
        Ok(Policies(told.into_iter().map(policy).collect::<Result<_, PolicyError>>()?))
    }

    /// These, and those after them.
    #[must_use]
    pub fn then(&self, after: &Policies) -> Policies {
        Policies(self.0.iter().chain(&after.0).cloned().collect())
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|rules| rules.is_empty())
    }

    /// Converts a source as the rules say, and tells whether anything has changed. All policies see each conversion's
    /// result again, from the first one on.
    ///
    /// # Errors
    /// A source that is denied, conversions in a circle, and rules that make no sense.
    pub fn apply(&self, source: &mut SourceOp) -> Result<bool, PolicyError> {
        for conversions in 0..=MAX_CONVERSIONS {
            if !self.pass(source)? {
                return Ok(conversions > 0);
            }
        }
        Err(PolicyError::TooManyConversions)
    }

    /// The first policy that changes a source or denies it is the last one of a pass.
    fn pass(&self, source: &mut SourceOp) -> Result<bool, PolicyError> {
        for rules in &self.0 {
            if judge(rules, source)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// One policy: of the rules that allow and deny, the last one counts; one that changes something ends it.
fn judge(rules: &[Rule], source: &mut SourceOp) -> Result<bool, PolicyError> {
    let mut denied = false;
    for rule in rules {
        if !rule.selector.matches(source)? {
            continue;
        }
        match PolicyAction::try_from(rule.action) {
            Ok(PolicyAction::Allow) => denied = false,
            Ok(PolicyAction::Deny) => denied = true,
            Ok(PolicyAction::Convert) => {
                if rule.convert(source)? {
                    return Ok(true);
                }
            }
            Err(_) => {
                return Err(PolicyError::UnknownAction {
                    action: rule.action,
                    selector: rule.selector.identifier.clone(),
                    identifier: source.identifier.clone(),
                });
            }
        }
    }
    match denied {
        true => Err(PolicyError::Denied(source.identifier.clone())),
        false => Ok(false),
    }
}

impl Rule {
    fn convert(&self, source: &mut SourceOp) -> Result<bool, PolicyError> {
        let Some(updates) = &self.updates else {
            return Err(PolicyError::Convert("missing destination for convert rule".to_owned()));
        };
        let mut changed = false;
        // Without an identifier, only attributes are changed.
        if !updates.identifier.is_empty() {
            let to = self.selector.convert(&source.identifier, &updates.identifier)?;
            if !to.is_empty() && to != source.identifier {
                tracing::debug!(from = source.identifier, to, "a source policy converts a source");
                source.identifier = to;
                changed = true;
            }
        }
        for (key, value) in &updates.attrs {
            if source.attrs.get(key).map_or("", String::as_str) != value {
                source.attrs.insert(key.clone(), value.clone());
                changed = true;
            }
        }
        Ok(changed)
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
