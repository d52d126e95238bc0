use std::sync::Arc;
use std::time::SystemTime;

use crosskit_api::control;
use crosskit_api::pb;
use crosskit_llb::Digest;

/// What does not change about a step.
#[derive(Debug)]
pub(crate) struct VertexInfo {
    /// As the client knows it.
    pub digest: Digest,
    pub inputs: Vec<Digest>,
    pub name: String,
    pub group: Option<pb::ProgressGroup>,
}

/// The state of a step.
#[derive(Debug, Clone)]
pub(crate) struct VertexState {
    pub info: Arc<VertexInfo>,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
    pub cached: bool,
    pub error: Option<Arc<str>>,
}

impl VertexState {
    pub fn initial(info: Arc<VertexInfo>) -> Self {
        VertexState { info, started: None, completed: None, cached: false, error: None }
    }
}

/// Something to tell.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Vertex(VertexState),
    Status(Arc<control::VertexStatus>),
    Log(Arc<control::VertexLog>),
    Warning(Arc<control::VertexWarning>),
}

impl Event {
    /// About how many bytes it takes in a message.
    pub fn size(&self) -> usize {
        /// A digest as text, times and the frames around them.
        const FRAME: usize = 140;
        match self {
            Event::Vertex(state) => FRAME + state.info.inputs.len() * 73 + state.info.name.len(),
            Event::Status(status) => FRAME + status.id.len() + status.name.len(),
            Event::Log(log) => FRAME + log.msg.len(),
            Event::Warning(warning) => {
                let source = warning.info.as_ref().map_or(0, |info| info.data.len());
                FRAME + warning.detail.iter().map(Vec::len).sum::<usize>() + source
            }
        }
    }

    pub fn encode(&self, into: &mut control::StatusResponse) {
        match self {
            Event::Vertex(state) => into.vertexes.push(control::Vertex {
                digest: state.info.digest.to_string(),
                inputs: state.info.inputs.iter().map(Digest::to_string).collect(),
                name: state.info.name.clone(),
                cached: state.cached,
                started: state.started.map(Into::into),
                completed: state.completed.map(Into::into),
                error: state.error.as_deref().unwrap_or_default().to_owned(),
                progress_group: state.info.group.clone(),
            }),
            Event::Status(status) => into.statuses.push(control::VertexStatus::clone(status)),
            Event::Log(log) => into.logs.push(control::VertexLog::clone(log)),
            Event::Warning(warning) => into.warnings.push(control::VertexWarning::clone(warning)),
        }
    }
}
