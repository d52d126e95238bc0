//! What people see of a build: which steps run, how far they are, what they print.
//!
//! A vertex has one [`VertexProgress`], which all builds that want it listen to: its events go
//! into the [`JobLog`] of each, and a build that joins later is told what has happened so far.
//! A [`JobLog`] is read by any number of clients, each from the beginning.

mod event;
mod job_log;
mod log_writer;
mod stream;
mod vertex;

pub(crate) use event::VertexInfo;
pub(crate) use job_log::JobLog;
pub use log_writer::{LogLimits, LogWriter, Stream};
pub use stream::StatusStream;
pub use vertex::{Part, Running, StatusUpdate, VertexProgress};
