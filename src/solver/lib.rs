//! In what order: vertices, edges, dedupe across builds, progress.

mod context;
mod engine;
mod error;
mod few;
mod op;
pub mod progress;
mod promise;
mod solver;

pub use context::{JobContext, JobGroup, OpContext};
pub use error::{ErrorKind, JobError, OpError, SolveError};
pub use op::{CacheDep, CacheMap, ContentKey, Op, OpResolver, Permit, Preprocess};
pub use progress::{LogLimits, LogWriter, StatusStream, StatusUpdate, VertexProgress};
pub use promise::{Input, Promised, Told};
pub use solver::{Job, Known, LoadOptions, ResultHandle, Solver, Step};
