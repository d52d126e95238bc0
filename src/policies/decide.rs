//! The whole decision about one source: the rules first, then the client where it wants to be asked.

use crate::{Policies, PolicyError};
use crosskit_api::frontend::{ResolveSourceMetaRequest, ResolveSourceMetaResponse};
use crosskit_api::pb::{Platform, SourceOp};
use crosskit_api::sourcepolicy::PolicyAction;
use crosskit_api::sourcepolicy::policysession::check_policy_response::Result as Answer;
use crosskit_api::sourcepolicy::policysession::{CheckPolicyRequest, CheckPolicyResponse, DecisionResponse};
use std::collections::BTreeMap;

/// How often a client is asked about one source, its conversions included.
pub const MAX_QUESTIONS: usize = 10;

/// What a decision needs from outside.
pub trait Outside {
    /// Why it cannot be had.
    type Error;

    /// The one form of a source's identifier that rules are compared with.
    fn canonical(&self, source: &SourceOp) -> String;

    /// Whether there is a client that decides.
    fn decides(&self) -> bool;

    /// Asks the client.
    fn check(
        &self,
        request: CheckPolicyRequest,
    ) -> impl Future<Output = Result<CheckPolicyResponse, Self::Error>> + Send;

    /// What is known of a source, for a client that wants to know before it decides.
    fn facts(
        &self,
        request: ResolveSourceMetaRequest,
    ) -> impl Future<Output = Result<ResolveSourceMetaResponse, Self::Error>> + Send;
}

/// Why there is no decision.
#[derive(Debug)]
pub enum Failure<E> {
    /// It is no, or none can be made.
    Policy(PolicyError),
    /// What was needed from outside failed.
    Outside(E),
}

impl<E> From<PolicyError> for Failure<E> {
    fn from(error: PolicyError) -> Self {
        Failure::Policy(error)
    }
}

/// The source to use in place of this one; the same where nobody wants another.
///
/// # Errors
/// A source that may not be used, and policies that make no sense or never end.
pub async fn decide<O: Outside + Sync>(
    policies: &Policies,
    outside: &O,
    mut source: SourceOp,
    platform: Option<&Platform>,
) -> Result<SourceOp, Failure<O::Error>> {
    let mut left = MAX_QUESTIONS;
    loop {
        source.identifier = outside.canonical(&source);
        policies.apply(&mut source)?;
        if !outside.decides() {
            return Ok(source);
        }
        let decision = ask(outside, &source, platform, &mut left).await?;
        match PolicyAction::try_from(decision.action) {
            Ok(PolicyAction::Allow) => return Ok(source),
            Ok(PolicyAction::Convert) => {
                // The rules, and the client, have to agree with it again.
                source = decision.update.ok_or(PolicyError::NoUpdate)?;
                tracing::debug!(to = source.identifier, "the client converts a source");
            }
            other => {
                let name = other.map(|action| action.as_str_name().to_owned());
                return Err(Failure::Policy(PolicyError::NotAllowed {
                    identifier: source.identifier,
                    action: name.unwrap_or_else(|_| decision.action.to_string()),
                    messages: decision.deny_messages,
                }));
            }
        }
    }
}

/// Asks the client about a source and answers its questions until it decides.
async fn ask<O: Outside>(
    outside: &O,
    source: &SourceOp,
    platform: Option<&Platform>,
    left: &mut usize,
) -> Result<DecisionResponse, Failure<O::Error>> {
    let mut known = ResolveSourceMetaResponse { source: Some(source.clone()), ..Default::default() };
    loop {
        *left = left.checked_sub(1).ok_or(PolicyError::TooManyQuestions)?;
        let request =
            CheckPolicyRequest { platform: platform.cloned(), source: Some(known), caps: BTreeMap::new() };
        let answer = outside.check(request).await.map_err(Failure::Outside)?;
        match answer.result {
            Some(Answer::Decision(decision)) => return Ok(decision),
            None => return Err(Failure::Policy(PolicyError::NoDecision)),
            Some(Answer::Request(question)) => {
                same_source(source, &question)?;
                known = outside.facts(question).await.map_err(Failure::Outside)?;
            }
        }
    }
}

/// A client may ask only about the source that it is to decide about.
fn same_source(source: &SourceOp, question: &ResolveSourceMetaRequest) -> Result<(), PolicyError> {
    let asked = question.source.clone().unwrap_or_default();
    let other = |what, difference| Err(PolicyError::OtherSource { what, difference });
    if asked.identifier != source.identifier {
        return other("identifier", format!("{:?} != {:?}", asked.identifier, source.identifier));
    }
    if asked.attrs.len() != source.attrs.len() {
        let lengths = (source.attrs.len(), asked.attrs.len());
        return other("attrs", format!("map length mismatch: {} != {}", lengths.0, lengths.1));
    }
    for (key, value) in &source.attrs {
        match asked.attrs.get(key) {
            None => return other("attrs", format!("key {key} missing from second map")),
            Some(found) if found != value => {
                return other("attrs", format!("value mismatch for key {key}: {value} != {found}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
