use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crosskit_platforms::Platform;
use serde::Serialize;

use super::{BuildId, Outcome, TicketId};
use crate::{Choice, Kind, Reason};

/// What was thought of one worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The worker.
    pub worker: String,
    /// How it runs programs.
    pub kind: Kind,
    /// Why it was chosen or was not.
    pub reason: Reason,
}

/// Where a step goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The name of the worker.
    pub worker: String,
    /// How it runs programs.
    pub kind: Kind,
    /// Why it was chosen.
    pub choice: Choice,
    /// What was thought of every worker; empty on a farm of more than the policy's `verdicts`.
    pub verdicts: Vec<Verdict>,
}

/// A decision and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Of which ticket.
    pub ticket: TicketId,
    /// Of which build.
    pub build: BuildId,
    /// Of which of its groups.
    pub group: usize,
    /// What was to be run.
    pub platform: Platform,
    /// Where it went.
    pub decision: Arc<Decision>,
    /// How long it waited for a place.
    pub waited: Duration,
    /// How long it ran; none while it does.
    pub ran: Option<Duration>,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
}

/// The latest decisions.
pub(super) struct History {
    records: VecDeque<Record>,
    /// How many were forgotten.
    gone: u64,
    most: usize,
}

impl History {
    pub(super) fn new(most: usize) -> Self {
        History { records: VecDeque::new(), gone: 0, most }
    }

    /// Remembers one, and gives it a number.
    pub(super) fn add(&mut self, record: impl FnOnce() -> Record) -> u64 {
        if self.most == 0 {
            return 0;
        }
        if self.records.len() == self.most {
            self.records.pop_front();
            self.gone += 1;
        }
        self.records.push_back(record());
        self.gone + self.records.len() as u64 - 1
    }

    pub(super) fn get_mut(&mut self, number: u64, ticket: TicketId) -> Option<&mut Record> {
        let place = usize::try_from(number.checked_sub(self.gone)?).ok()?;
        self.records.get_mut(place).filter(|record| record.ticket == ticket)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter()
    }
}
