//! What steps have left at a worker: the steps above them begin with it there, before it is here.

use super::RemoteError;
use super::definition::StepDefinition;
use super::session::RemoteSession;
use crate::ResultRef;
use crosskit_snapshots::Ref;
use crosskit_solver::Input;
use std::sync::{Arc, PoisonError};

/// A step that a worker has run in a session.
pub(super) struct Made {
    session: String,
    definition: Arc<StepDefinition>,
}

/// An output of a step that a worker has run.
#[derive(Debug, Clone)]
pub(super) struct MadeOutput {
    /// The step, with all that it was made of.
    pub(super) definition: Arc<StepDefinition>,
    /// Which of its outputs.
    pub(super) output: usize,
}

impl Made {
    /// By a step in this session.
    pub(super) fn new(session: &RemoteSession, definition: Arc<StepDefinition>) -> Made {
        Made { session: session.id.clone(), definition }
    }
}

impl RemoteSession {
    /// Notes that a result of a step is at the worker.
    pub(super) fn leave(&self, result: &Ref, made: MadeOutput) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.insert(result.id().to_string(), made);
    }

    /// Where an input is at the worker if a step of this session has made it; none if none has.
    ///
    /// # Errors
    /// An input that is on its way from elsewhere.
    pub(super) fn made(&self, input: &Input<ResultRef>) -> Result<Option<MadeOutput>, RemoteError> {
        match input {
            Input::Here(Some(result)) => {
                let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                // To find such a step again, the worker would have to look through the folder again.
                Ok(left.get(result.id()).filter(|made| !made.definition.looks_into_folders()).cloned())
            }
            Input::Here(None) => Ok(None),
            Input::Promised(promised) => {
                let made = promised.told.downcast_ref::<Made>().filter(|made| made.session == self.id);
                let made = made.ok_or(RemoteError::Early)?;
                Ok(Some(MadeOutput { definition: made.definition.clone(), output: promised.output }))
            }
        }
    }
}
