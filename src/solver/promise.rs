//! Results that are certain before they are here.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::OpError;

/// What an operation tells of its results while they are on their way; whoever uses it knows the type.
pub type Told = Arc<dyn Any + Send + Sync>;

/// How an operation says that its results are certain.
#[derive(Clone)]
pub(crate) struct Announce(Arc<dyn Fn(Told) + Send + Sync>);

impl Announce {
    pub fn new(announce: impl Fn(Told) + Send + Sync + 'static) -> Self {
        Announce(Arc::new(announce))
    }

    pub fn tell(&self, told: Told) {
        (self.0)(told);
    }
}

/// An input of an operation that can begin before its inputs are here.
pub enum Input<R> {
    /// The result.
    Here(R),
    /// A result that is still on its way.
    Promised(Promised<R>),
}

impl<R: Clone> Input<R> {
    /// The result, which may have to come first.
    ///
    /// # Errors
    /// It will never come.
    pub async fn result(&self) -> Result<R, OpError> {
        match self {
            Input::Here(result) => Ok(result.clone()),
            Input::Promised(promised) => promised.result().await,
        }
    }
}

/// A result that is on its way. Whatever happens to what it was promised of, it comes, made otherwise if need be, or
/// an error does.
pub struct Promised<R> {
    /// What the operation that makes it has told of its results.
    pub told: Told,
    /// Which of its outputs it is.
    pub output: usize,
    pub(crate) settled: watch::Receiver<Settled<R>>,
}

/// What has become of a promise; none as long as that is open.
pub(crate) type Settled<R> = Option<Result<R, OpError>>;

impl<R: Clone> Promised<R> {
    /// The result, once it is here.
    ///
    /// # Errors
    /// It will never come.
    pub async fn result(&self) -> Result<R, OpError> {
        let mut settled = self.settled.clone();
        let settled = settled.wait_for(Option::is_some).await;
        settled.ok().and_then(|settled| settled.clone()).unwrap_or_else(|| Err(OpError::canceled()))
    }
}

impl<R> fmt::Debug for Promised<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promised").field("output", &self.output).finish_non_exhaustive()
    }
}
