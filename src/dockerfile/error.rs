use std::fmt;
use std::sync::Arc;

use crosskit_api::pb;
use crosskit_llb::SourceFile;

/// Who has to act when an error happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The Dockerfile or the request asks for something that cannot be.
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

/// What the outside answered instead of a result; the caller gets it back as [`DockerfileError::cause`].
pub type BridgeError = Arc<dyn std::error::Error + Send + Sync>;

/// Lines of a file, both included and counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lines {
    /// The first one.
    pub first: u32,
    /// The last one.
    pub last: u32,
}

impl Lines {
    /// No place of the file.
    pub(crate) const NOWHERE: Lines = Lines { first: 0, last: u32::MAX };

    /// This line alone.
    pub fn one(line: u32) -> Self {
        Lines { first: line, last: line }
    }

    /// As they go over the wire: a range for each line.
    pub fn to_ranges(self) -> Vec<pb::Range> {
        if self == Lines::NOWHERE {
            return Vec::new();
        }
        let position = |line: u32| Some(pb::Position { line: line as i32, character: 0 });
        (self.first..=self.last.max(self.first))
            .map(|line| pb::Range { start: position(line), end: position(line) })
            .collect()
    }
}

/// Why a Dockerfile is not built. Prints as the one line that clients show and match on.
#[derive(Debug, Clone)]
pub struct DockerfileError {
    kind: ErrorKind,
    message: String,
    /// Where it is wrong, the innermost first.
    pub locations: Vec<Lines>,
    /// The file that the locations are of.
    pub file: Option<Arc<SourceFile>>,
    /// What the outside said.
    pub cause: Option<BridgeError>,
}

impl DockerfileError {
    /// Something that its author has to change.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::User, message)
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        DockerfileError { kind, message: message.into(), locations: Vec::new(), file: None, cause: None }
    }

    /// What the outside said, with what was being done in front.
    pub fn outside(doing: &str, cause: BridgeError) -> Self {
        let message = match doing {
            "" => cause.to_string(),
            doing => format!("{doing}: {cause}"),
        };
        DockerfileError { cause: Some(cause), ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// Who has to act. For what the outside said, `cause` knows better.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same, at these lines.
    #[must_use]
    pub fn at(mut self, lines: Lines) -> Self {
        self.locations.push(lines);
        self
    }

    /// The same, at these lines only.
    #[must_use]
    pub(crate) fn only_at(mut self, lines: Lines) -> Self {
        self.locations = vec![lines];
        self
    }

    /// The same with what was being done in front.
    #[must_use]
    pub fn while_doing(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same with a guess at what was meant.
    #[must_use]
    pub(crate) fn suggest<'a>(mut self, word: &str, options: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(guess) = crate::suggest::nearest(word, options) {
            self.message.push_str(&format!(" (did you mean {guess}?)"));
        }
        self
    }

    /// The same, with the file that the locations are of.
    #[must_use]
    pub fn in_file(mut self, file: &Arc<SourceFile>) -> Self {
        self.file.get_or_insert_with(|| file.clone());
        self
    }
}

impl fmt::Display for DockerfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DockerfileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

impl From<crosskit_llb::LlbError> for DockerfileError {
    fn from(error: crosskit_llb::LlbError) -> Self {
        let kind = match error.kind() {
            crosskit_llb::ErrorKind::User => ErrorKind::User,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

/// Shorthand of this crate.
pub type Result<T, E = DockerfileError> = std::result::Result<T, E>;
