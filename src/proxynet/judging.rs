//! Who decides about a step's requests.

use crate::Record;
use futures::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// Decides which addresses a step may use.
pub trait Judge: Send + Sync {
    /// The address to use in place of this one, if another is wanted. The address has no user in it. An error says what
    /// is refused, and by what.
    fn judge<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Option<String>, String>>;
}

/// What counts for the requests of one step.
#[derive(Clone)]
pub struct Rules {
    /// Who decides; None lets everything pass.
    pub judge: Option<Arc<dyn Judge>>,
    /// Where it is kept what was asked.
    pub record: Arc<Record>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("judged", &self.judge.is_some()).finish_non_exhaustive()
    }
}
