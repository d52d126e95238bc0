//! Errors as gRPC statuses with typed details, both ways.
//!
//! A detail is an `Any` whose type URL ends in `+json` and whose value is JSON
//! (BuildKit `util/grpcerrors`, `solver/errdefs`). Clients look for them to print the failing
//! lines of a Dockerfile, to open a shell where a step failed, or to retry without a capability.
//!
//! ```
//! use crosskit_api::{details, errors::ErrorDetails};
//! let details = ErrorDetails { vertex: Some("sha256:ab".into()), ..Default::default() };
//! let status = details.to_status(tonic::Code::Unknown, "exit code: 1");
//! assert_eq!(ErrorDetails::from_status(&status).vertex.as_deref(), Some("sha256:ab"));
//! ```

pub(crate) mod schema;
pub(crate) mod transcode;

use crate::{details, frontend, rpc, sourcepolicy::policysession, stack};
use prost::Message;
use schema::Schema;
use tonic::{Code, Status};
use transcode::Dialect;

/// What type URLs begin with.
const HOST: &str = "github.com/moby/buildkit/";

/// Everything that an error tells besides its sentence.
///
/// Where one error lies in another, lists go from the inner one to the outer one, and single
/// values are those of the outermost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorDetails {
    /// Digest of the vertex that failed.
    pub vertex: Option<String>,
    /// The places in source files that the failing vertex was written in.
    pub sources: Vec<details::Source>,
    /// The operation that failed, with references to its inputs and mounts.
    pub solve: Option<details::Solve>,
    /// A subrequest that the frontend does not know.
    pub subrequest: Option<String>,
    /// A capability that the frontend lacks.
    pub frontend_cap: Option<String>,
    /// The frontends in which it failed.
    pub frontends: Vec<details::Frontend>,
    /// A feature that needs another compatibility version.
    pub compatibility: Option<details::CompatibilityFeature>,
    /// Materials that provenance could not pin.
    pub incomplete: Option<details::ProvenanceMaterialsIncomplete>,
    /// The exit code of a process.
    pub exit_code: Option<u32>,
    /// What a policy decided against.
    pub decision: Option<policysession::DecisionResponse>,
    /// Stack traces, one for each process that the error came through.
    pub stacks: Vec<stack::Stack>,
    /// Details of other types, as they came.
    pub others: Vec<prost_types::Any>,
}

impl ErrorDetails {
    /// A gRPC status for the end of a call.
    #[must_use]
    pub fn to_status(&self, code: Code, message: impl Into<String>) -> Status {
        let message = message.into();
        let rpc = self.to_rpc(code, message.clone());
        if rpc.details.is_empty() {
            return Status::new(code, message);
        }
        Status::with_details(code, message, rpc.encode_to_vec().into())
    }

    /// The same inside of a message, as gateway results, history and process exits carry it.
    #[must_use]
    pub fn to_rpc(&self, code: Code, message: impl Into<String>) -> rpc::Status {
        rpc::Status { code: code.into(), message: message.into(), details: self.to_any() }
    }

    /// What came with the status of a call. A detail that can't be read is kept in `others`.
    #[must_use]
    pub fn from_status(status: &Status) -> ErrorDetails {
        match rpc::Status::decode(status.details()) {
            Ok(rpc) => Self::from_rpc(&rpc),
            // Other servers put other things there; nothing of it is ours.
            Err(_) => ErrorDetails::default(),
        }
    }

    /// What came with a status inside of a message.
    #[must_use]
    pub fn from_rpc(status: &rpc::Status) -> ErrorDetails {
        let mut out = ErrorDetails::default();
        for any in &status.details {
            if !out.take(any) {
                out.others.push(any.clone());
            }
        }
        out
    }

    /// Nothing is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == ErrorDetails::default()
    }

    /// Adds what an outer error tells: its single values replace those here, its lists follow.
    pub fn extend(&mut self, outer: ErrorDetails) {
        self.vertex = outer.vertex.or(self.vertex.take());
        self.solve = outer.solve.or(self.solve.take());
        self.subrequest = outer.subrequest.or(self.subrequest.take());
        self.frontend_cap = outer.frontend_cap.or(self.frontend_cap.take());
        self.compatibility = outer.compatibility.or(self.compatibility.take());
        self.incomplete = outer.incomplete.or(self.incomplete.take());
        self.exit_code = outer.exit_code.or(self.exit_code);
        self.decision = outer.decision.or(self.decision.take());
        self.sources.extend(outer.sources);
        self.frontends.extend(outer.frontends);
        self.stacks.extend(outer.stacks);
        self.others.extend(outer.others);
    }

    fn to_any(&self) -> Vec<prost_types::Any> {
        let mut out = self.others.clone();
        let mut add = |name: &str, schema: &Schema, dialect, wire: Vec<u8>| {
            // What we encoded ourselves is well-formed, so only foreign depth could fail here.
            let Ok(json) = transcode::to_json(schema, dialect, &wire) else { return };
            let Ok(value) = crate::json::to_vec(&json) else { return };
            out.push(prost_types::Any { type_url: format!("{HOST}{name}+json"), value });
        };
        let plain = Dialect::Plain;
        for stack in &self.stacks {
            add("stack.Stack", &schema::STACK, plain, stack.encode_to_vec());
        }
        if let Some(code) = self.exit_code {
            let exit = frontend::ExitMessage { code, error: None };
            add("gatewayapi.ExitMessage", &schema::EXIT, plain, exit.encode_to_vec());
        }
        if let Some(solve) = &self.solve {
            add("errdefs.Solve", &schema::SOLVE, Dialect::Canonical, solve.encode_to_vec());
        }
        if let Some(digest) = &self.vertex {
            let vertex = details::Vertex { digest: digest.clone() };
            add("errdefs.Vertex", &schema::VERTEX, plain, vertex.encode_to_vec());
        }
        for source in &self.sources {
            add("errdefs.Source", &schema::SOURCE, plain, source.encode_to_vec());
        }
        if let Some(name) = &self.subrequest {
            let subrequest = details::Subrequest { name: name.clone() };
            add("errdefs.Subrequest", &schema::NAMED, plain, subrequest.encode_to_vec());
        }
        if let Some(name) = &self.frontend_cap {
            let cap = details::FrontendCap { name: name.clone() };
            add("errdefs.FrontendCap", &schema::NAMED, plain, cap.encode_to_vec());
        }
        if let Some(feature) = &self.compatibility {
            add("errdefs.CompatibilityFeature", &schema::COMPATIBILITY, plain, feature.encode_to_vec());
        }
        if let Some(incomplete) = &self.incomplete {
            add(
                "errdefs.ProvenanceMaterialsIncomplete",
                &schema::INCOMPLETE,
                plain,
                incomplete.encode_to_vec(),
            );
        }
        if let Some(decision) = &self.decision {
            add("policysession.DecisionResponse", &schema::DECISION, plain, decision.encode_to_vec());
        }
        for frontend in &self.frontends {
            add("errdefs.Frontend", &schema::FRONTEND, plain, frontend.encode_to_vec());
        }
        out
    }

    /// Whether the detail was one of ours.
    fn take(&mut self, any: &prost_types::Any) -> bool {
        let Some(name) = any.type_url.strip_prefix(HOST).and_then(|n| n.strip_suffix("+json")) else {
            return false;
        };
        let value = &any.value;
        match name {
            "errdefs.Vertex" => {
                read(&schema::VERTEX, value).map(|v: details::Vertex| self.vertex = Some(v.digest))
            }
            "errdefs.Source" => read(&schema::SOURCE, value).map(|v| self.sources.push(v)),
            "errdefs.Solve" => read(&schema::SOLVE, value).map(|v| self.solve = Some(v)),
            "errdefs.Subrequest" => {
                read(&schema::NAMED, value).map(|v: details::Subrequest| self.subrequest = Some(v.name))
            }
            "errdefs.FrontendCap" => {
                read(&schema::NAMED, value).map(|v: details::FrontendCap| self.frontend_cap = Some(v.name))
            }
            "errdefs.Frontend" => read(&schema::FRONTEND, value).map(|v| self.frontends.push(v)),
            "errdefs.CompatibilityFeature" => {
                read(&schema::COMPATIBILITY, value).map(|v| self.compatibility = Some(v))
            }
            "errdefs.ProvenanceMaterialsIncomplete" => {
                read(&schema::INCOMPLETE, value).map(|v| self.incomplete = Some(v))
            }
            "gatewayapi.ExitMessage" => {
                read(&schema::EXIT, value).map(|v: frontend::ExitMessage| self.exit_code = Some(v.code))
            }
            "policysession.DecisionResponse" => {
                read(&schema::DECISION, value).map(|v| self.decision = Some(v))
            }
            "stack.Stack" => read(&schema::STACK, value).map(|v| self.stacks.push(v)),
            _ => None,
        }
        .is_some()
    }
}

fn read<T: Message + Default>(schema: &Schema, json: &[u8]) -> Option<T> {
    let json = serde_json::from_slice(json).ok()?;
    T::decode(transcode::from_json(schema, &json).ok()?.as_slice()).ok()
}

/// A status in one line as BuildKit's clients print it: the code's name in front of the
/// sentence, unless the code tells nothing.
#[must_use]
pub fn describe(code: Code, message: &str) -> String {
    match code {
        Code::Ok | Code::Unknown => message.to_owned(),
        // The one name that Go spells in another way.
        Code::Cancelled => format!("Canceled: {message}"),
        code => format!("{code:?}: {message}"),
    }
}

#[cfg(test)]
#[path = "errors/errors_tests.rs"]
mod tests;
