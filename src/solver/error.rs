use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use crosskit_api::details;
use crosskit_api::errors::ErrorDetails;
use crosskit_api::{stack, version};
use crosskit_llb::{Digest, SourceLocation, Vertex};

/// Who has to act when an error happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request asks for something that cannot be, or a step of it failed.
    User,
    /// The machine lacks something.
    Environment,
    /// Something outside does not answer.
    Unavailable,
    /// The one who asked has left.
    Canceled,
    /// A bug.
    Internal,
}

/// Why an operation failed. Clones share one error.
#[derive(Clone)]
pub struct OpError(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    /// Where in our code it was made.
    origin: &'static Location<'static>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    subject: Option<details::solve::Subject>,
    details: Arc<ErrorDetails>,
    attachment: Option<Arc<dyn Any + Send + Sync>>,
}

impl OpError {
    /// With a message that says what was being done, to what, and what went wrong.
    #[track_caller]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let (source, subject, details, attachment) = Default::default();
        let (message, origin) = (message.into(), Location::caller());
        OpError(Arc::new(Inner { kind, message, origin, source, subject, details, attachment }))
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// From an error of another crate; the message is that of the error and its causes.
    #[track_caller]
    pub fn from_error(kind: ErrorKind, error: impl StdError + Send + Sync + 'static) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        let mut own = OpError::new(kind, message);
        own.inner().source = Some(Arc::new(error));
        own
    }

    /// That the one who asked has left.
    #[track_caller]
    pub fn canceled() -> Self {
        OpError::new(ErrorKind::Canceled, "context canceled")
    }

    /// Says what was being done when it happened.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        let inner = self.inner();
        inner.message = format!("{doing}: {}", inner.message);
        self
    }

    /// Names the part of the operation that failed.
    #[must_use]
    pub fn about(mut self, subject: details::solve::Subject) -> Self {
        self.inner().subject = Some(subject);
        self
    }

    /// Tells more than the sentence, such as the exit code of a process.
    #[must_use]
    pub fn with_details(mut self, details: ErrorDetails) -> Self {
        self.inner().details = Arc::new(details);
        self
    }

    /// Keeps something for whoever looks into the failure, such as the root filesystem of the
    /// step that failed.
    #[must_use]
    pub fn attach(mut self, attachment: Arc<dyn Any + Send + Sync>) -> Self {
        self.inner().attachment = Some(attachment);
        self
    }

    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The part of the operation that failed.
    pub fn subject(&self) -> Option<&details::solve::Subject> {
        self.0.subject.as_ref()
    }

    /// What it tells besides its sentence.
    pub fn details(&self) -> &ErrorDetails {
        &self.0.details
    }

    /// Through which process it came and where in it, for `buildctl --debug`. Whoever passes an error of another
    /// daemon on adds itself.
    fn trace(&self) -> stack::Stack {
        let origin = self.0.origin;
        let module = origin.file().trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
        let frame = stack::Frame {
            name: format!("{}::{module}", version::PACKAGE),
            file: origin.file().to_string(),
            line: i32::try_from(origin.line()).unwrap_or(i32::MAX),
        };
        stack::Stack {
            frames: vec![frame],
            cmdline: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            pid: i32::try_from(std::process::id()).unwrap_or(i32::MAX),
            version: version::VERSION.to_string(),
            revision: version::REVISION.to_string(),
        }
    }

    /// What was kept, if it is of this type.
    pub fn attachment<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.attachment.clone()?.downcast().ok()
    }

    /// The error underneath or one of its causes, if it is of this type.
    pub fn cause<T: StdError + 'static>(&self) -> Option<&T> {
        let mut cause: Option<&(dyn StdError + 'static)> =
            self.0.source.as_deref().map(|error| error as &(dyn StdError + 'static));
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpError").field("kind", &self.0.kind).field("message", &self.0.message).finish()
    }
}

impl StdError for OpError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|error| error as &(dyn StdError + 'static))
    }
}

/// Why a result cannot be had: the first failure of a vertex that it needs. Clones are cheap.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SolveError {
    /// The vertex that failed; none when no vertex is to blame, such as for a cancelled build.
    pub vertex: Option<Arc<Vertex>>,
    /// What the vertex is called in progress.
    pub name: Arc<str>,
    /// What happened, from the outermost cause to the innermost.
    pub message: String,
    /// Where the vertex was written.
    pub locations: Arc<[SourceLocation]>,
    /// What the operation said.
    #[source]
    pub error: OpError,
    /// Names by which a client may refer to the inputs of the failed operation.
    pub input_ids: Vec<String>,
    /// Names by which a client may refer to the mounts of the failed operation.
    pub mount_ids: Vec<String>,
}

impl SolveError {
    /// That the build was cancelled.
    pub fn canceled() -> Self {
        SolveError::outside(OpError::canceled())
    }

    /// A failure that is no vertex's.
    pub fn outside(error: OpError) -> Self {
        SolveError {
            vertex: None,
            name: Arc::default(),
            message: error.to_string(),
            locations: Arc::default(),
            error,
            input_ids: Vec::new(),
            mount_ids: Vec::new(),
        }
    }

    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The digest of the vertex that failed.
    pub fn digest(&self) -> Option<Digest> {
        self.vertex.as_ref().map(|vertex| vertex.digest)
    }

    /// As the typed details of a gRPC status: what the operation said, the vertex, the operation
    /// with the names of its inputs and mounts, the places it was written at, and where in which daemon it failed.
    pub fn details(&self) -> ErrorDetails {
        let mut told = self.error.details().clone();
        if let Some(vertex) = &self.vertex {
            told.vertex = Some(vertex.digest.to_string());
            told.solve = Some(details::Solve {
                input_i_ds: self.input_ids.clone(),
                mount_i_ds: self.mount_ids.clone(),
                op: Some(vertex.op.clone()),
                description: vertex.metadata.description.clone(),
                subject: self.error.subject().copied(),
            });
            // The last one written down is told first, as BuildKit's clients expect.
            told.stacks.push(self.error.trace());
            told.sources.extend(self.locations.iter().rev().map(source_detail));
        }
        told
    }
}

fn source_detail(location: &SourceLocation) -> details::Source {
    let file = &location.file;
    let info = crosskit_api::pb::SourceInfo {
        filename: file.filename.clone(),
        data: file.data.clone(),
        definition: file.definition.clone(),
        language: file.language.clone(),
    };
    details::Source { info: Some(info), ranges: location.ranges.clone() }
}

/// Why a job cannot be had. The texts are those that BuildKit's clients see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A build with this name runs or has just ended.
    #[error("job ID {0} exists")]
    Exists(String),
    /// No build of this name has come up.
    #[error("no such job {0}")]
    Unknown(String),
    /// The solver has been stopped.
    #[error("the solver has stopped: the daemon is shutting down")]
    Stopped,
}

impl JobError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            JobError::Exists(_) | JobError::Unknown(_) => ErrorKind::User,
            JobError::Stopped => ErrorKind::Unavailable,
        }
    }
}
