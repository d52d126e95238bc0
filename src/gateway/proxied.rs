//! Builds whose steps reach the network through a proxy only: which rules count for their requests, and who decides.

use crate::GatewayError;
use crate::bridge::Bridge;
use crate::policies::Deciding;
use crosskit_api::pb::{self, op::Op};
use crosskit_llb::Graph;
use crosskit_policies::{Policies, decide};
use crosskit_proxynet::{Judge, Record, Rules};
use crosskit_session::SessionManager;
use crosskit_solver::JobContext;
use crosskit_workers::Workers;
use crosskit_workers::ops::proxied::{Decides, NO_RULES, key};
use futures::future::BoxFuture;
use std::sync::Arc;

/// Decides by the policies of a build, and asks its client where that wants to be asked.
struct ByPolicies {
    rules: Policies,
    /// The session of a client that decides itself; empty for none.
    session: String,
    sessions: SessionManager,
    workers: Workers,
    job: JobContext,
}

impl Judge for ByPolicies {
    fn judge<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async move {
            let source = pb::SourceOp { identifier: url.to_owned(), ..pb::SourceOp::default() };
            let decided = async {
                let deciding = Deciding::new(&self.sessions, &self.session, &self.workers, &self.job).await?;
                decide(&self.rules, &deciding, source, None).await.map_err(crate::policies::failed)
            };
            let wanted = decided.await.map_err(|error| said(&error))?;
            if !wanted.attrs.is_empty() {
                return Err(format!("source policy converts {url}: only its address can become another"));
            }
            Ok((wanted.identifier != url).then_some(wanted.identifier))
        })
    }
}

/// A refusal with what the client wants to be told about it.
fn said(error: &GatewayError) -> String {
    let told = error.details().decision.iter().flat_map(|decision| &decision.deny_messages);
    let texts = told.map(|told| told.message.as_str()).filter(|text| !text.is_empty());
    std::iter::once(error.message()).chain(texts).collect::<Vec<_>>().join(": ")
}

impl Bridge {
    /// The same graph with all processes behind the proxy, if that is wanted and there are any with a network.
    pub(crate) fn behind_proxy(&self, graph: &Graph, more: &Policies) -> Option<Graph> {
        let reaches_out =
            |op: &Option<Op>| matches!(op, Some(Op::Exec(exec)) if exec.network() != pb::NetMode::None);
        if !self.shared().proxied || !graph.vertices().iter().any(|vertex| reaches_out(&vertex.op.op)) {
            return None;
        }
        let name = match self.judge(more) {
            None => NO_RULES.to_owned(),
            Some(judge) => {
                // Steps that are judged alike are the same steps.
                let name = name_of(&judge);
                self.job().set_value(key(&name), Arc::new(Decides(Arc::new(judge))));
                name
            }
        };
        Some(graph.behind_proxy(&name))
    }

    /// What counts for the requests of a process that belongs to no step; none if it needs no proxy.
    pub(crate) fn proxy_rules(&self) -> Option<Rules> {
        let rules = || Rules {
            judge: self.judge(&Policies::default()).map(|judge| Arc::new(judge) as Arc<dyn Judge>),
            record: Arc::new(Record::default()),
        };
        self.shared().proxied.then(rules)
    }

    fn judge(&self, more: &Policies) -> Option<ByPolicies> {
        let policies = self.policies();
        (!policies.say_nothing(more)).then(|| ByPolicies {
            rules: policies.rules.then(more),
            session: policies.session.clone(),
            sessions: self.shared().sessions.clone(),
            workers: self.shared().workers.clone(),
            job: self.job().clone(),
        })
    }
}

fn name_of(judge: &ByPolicies) -> String {
    crosskit_llb::Digest::of(format!("{:?} {}", judge.rules, judge.session).as_bytes()).to_string()
}
