//! Source policies of a build: what its graphs and its questions about sources become under them.

use crate::GatewayError;
use crate::bridge::Bridge;
use crosskit_api::errors::ErrorDetails;
use crosskit_api::frontend::{ResolveSourceMetaRequest, ResolveSourceMetaResponse};
use crosskit_api::pb::{self, op::Op};
use crosskit_api::sourcepolicy::policysession::{CheckPolicyRequest, CheckPolicyResponse, DecisionResponse};
use crosskit_api::sourcepolicy::{Policy, PolicyAction};
use crosskit_llb::{DigestMap, Graph, Vertex};
use crosskit_policies::{Failure, Outside, Policies, PolicyError, decide};
use crosskit_session::{Session, SessionError, SessionManager, WAIT_FOR_SESSION};
use crosskit_solver::JobContext;
use crosskit_sources::canonical_identifier;
use crosskit_workers::Workers;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// Sources of one graph that a client is asked about at the same time.
const ASKED_AT_ONCE: usize = 32;

/// What the client of a build wants of all its sources.
#[derive(Clone, Debug, Default)]
pub struct BuildPolicies {
    /// Rules.
    pub rules: Policies,
    /// The session of a client that decides itself; empty for none.
    pub session: String,
}

impl BuildPolicies {
    /// As a request has them.
    ///
    /// # Errors
    /// Rules without a selector.
    pub fn new(policy: Option<Policy>, session: String) -> Result<Self, GatewayError> {
        Ok(BuildPolicies { rules: rules(policy.into_iter().collect())?, session })
    }

    pub(crate) fn say_nothing(&self, more: &Policies) -> bool {
        self.session.is_empty() && self.rules.is_empty() && more.is_empty()
    }
}

/// Rules as a request has them.
pub(crate) fn rules(told: Vec<Policy>) -> Result<Policies, GatewayError> {
    Policies::new(told).map_err(refused)
}

fn refused(error: PolicyError) -> GatewayError {
    let found = GatewayError::plain(error.to_string());
    match error {
        PolicyError::NotAllowed { messages, .. } if !messages.is_empty() => {
            let action = PolicyAction::Deny.into();
            let decision = DecisionResponse { action, deny_messages: messages, update: None };
            found.with_details(ErrorDetails { decision: Some(decision), ..ErrorDetails::default() })
        }
        _ => found,
    }
}

pub(crate) fn failed(failure: Failure<GatewayError>) -> GatewayError {
    match failure {
        Failure::Policy(error) => refused(error),
        Failure::Outside(error) => error,
    }
}

fn session_error(error: SessionError) -> GatewayError {
    match &error {
        SessionError::Call { status, .. } => GatewayError::new(status.code(), error.to_string())
            .with_details(ErrorDetails::from_status(status)),
        _ => GatewayError::plain(error.to_string()),
    }
}

/// A build, as decisions about its sources need it.
pub(crate) struct Deciding<'a> {
    workers: &'a Workers,
    job: &'a JobContext,
    client: Option<Session>,
}

impl<'a> Deciding<'a> {
    /// Waits for the client, where one decides: `session` is empty for none.
    pub(crate) async fn new(
        sessions: &SessionManager,
        session: &str,
        workers: &'a Workers,
        job: &'a JobContext,
    ) -> Result<Self, GatewayError> {
        let client = match session {
            "" => None,
            id => Some(sessions.get(id, WAIT_FOR_SESSION).await.map_err(session_error)?),
        };
        Ok(Deciding { workers, job, client })
    }
}

impl Outside for Deciding<'_> {
    type Error = GatewayError;

    fn canonical(&self, source: &pb::SourceOp) -> String {
        canonical_identifier(source)
    }

    fn decides(&self) -> bool {
        self.client.is_some()
    }

    async fn check(&self, request: CheckPolicyRequest) -> Result<CheckPolicyResponse, GatewayError> {
        let client = self.client.as_ref().ok_or_else(GatewayError::canceled)?;
        client.check_policy(request).await.map_err(session_error)
    }

    /// The source has been through the rules already, so it is taken as it is.
    async fn facts(
        &self,
        mut request: ResolveSourceMetaRequest,
    ) -> Result<ResolveSourceMetaResponse, GatewayError> {
        request.source_policies.clear();
        let is_image = request.source.as_ref().is_some_and(|s| s.identifier.starts_with("docker-image://"));
        if !is_image {
            request.resolve_mode.clear();
        }
        let found = self.workers.resolve_source_meta(self.job, request).await;
        found.map_err(|e| {
            GatewayError::from(e).while_doing("error resolving source metadata from policy request")
        })
    }
}

impl Bridge {
    async fn deciding(&self) -> Result<Deciding<'_>, GatewayError> {
        let shared = self.shared();
        Deciding::new(&shared.sessions, &self.policies().session, &shared.workers, self.job()).await
    }

    /// A graph with the sources that the build's policies, and after them `more`, want it to have; none where they
    /// want no others.
    pub(crate) async fn converted(
        &self,
        graph: &Graph,
        more: &Policies,
    ) -> Result<Option<Graph>, GatewayError> {
        let sources: Vec<_> = graph.vertices().iter().filter_map(source_of).collect();
        if sources.is_empty() || self.policies().say_nothing(more) {
            return Ok(None);
        }
        let (deciding, rules) = (&self.deciding().await?, &self.policies().rules.then(more));
        let one = |(vertex, source): (&Arc<Vertex>, &pb::SourceOp)| {
            let (vertex, source) = (Arc::clone(vertex), source.clone());
            async move {
                let wanted =
                    decide(rules, deciding, source.clone(), vertex.platform()).await.map_err(failed)?;
                Ok::<_, GatewayError>((wanted != source).then_some((vertex.digest, wanted)))
            }
        };
        let decisions: Vec<_> = sources.into_iter().map(one).collect();
        let changed: Vec<_> = futures::stream::iter(decisions)
            .buffer_unordered(ASKED_AT_ONCE)
            .try_collect()
            .await
            .map_err(|e: GatewayError| e.while_doing("error evaluating the source policy"))?;
        let changed = DigestMap::from_iter(changed.into_iter().flatten());
        Ok((!changed.is_empty()).then(|| graph.with_sources(changed)))
    }

    /// The source that somebody who asks about this one is told about.
    pub(crate) async fn converted_source(
        &self,
        source: pb::SourceOp,
        platform: Option<&pb::Platform>,
        first: &Policies,
    ) -> Result<pb::SourceOp, GatewayError> {
        if self.policies().say_nothing(first) {
            return Ok(source);
        }
        let rules = first.then(&self.policies().rules);
        let decided = async {
            let deciding = self.deciding().await?;
            decide(&rules, &deciding, source, platform).await.map_err(failed)
        };
        decided.await.map_err(|e| e.while_doing("could not resolve image due to policy"))
    }
}

fn source_of(vertex: &Arc<Vertex>) -> Option<(&Arc<Vertex>, &pb::SourceOp)> {
    match &vertex.op.op {
        Some(Op::Source(source)) => Some((vertex, source)),
        _ => None,
    }
}
