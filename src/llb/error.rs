use crate::Digest;

/// Who has to act when an error happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request asks for something that cannot be.
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

/// Why a graph is refused. The texts are those that BuildKit's clients see where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlbError {
    /// A definition without operations.
    #[error("invalid empty definition")]
    Empty,
    /// Bytes that are no operation.
    #[error("failed to parse llb proto op: {0}")]
    Parse(String),
    /// An operation refers to an output that cannot exist.
    #[error("invalid input {input} output index {index}")]
    NegativeIndex {
        /// Position among the inputs.
        input: usize,
        /// The output asked for.
        index: i64,
    },
    /// An input that is not in the definition.
    #[error("invalid missing input digest {0}")]
    MissingInput(String),
    /// Too few operations.
    #[error("invalid LLB with {0} vertexes")]
    TooFew(usize),
    /// The last operation points at nothing.
    #[error("invalid LLB with no inputs on last vertex")]
    NoHead,
    /// Operations that depend on one another.
    #[error("invalid LLB: vertex {0} depends on itself")]
    Cycle(Digest),
    /// More of something than any build needs.
    #[error("invalid LLB: {what} {found} is over the limit of {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// An operation that cannot be run.
    #[error("{0}")]
    Invalid(String),
    /// A source location without its file.
    #[error("failed to find source map with index {0}")]
    SourceIndex(i32),
    /// A constructed graph that makes no sense.
    #[error("cannot construct the graph: {0}")]
    Construct(String),
}

impl LlbError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LlbError::Construct(_) => ErrorKind::Internal,
            _ => ErrorKind::User,
        }
    }
}
