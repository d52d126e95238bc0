use crosskit_api::sourcepolicy::policysession::DenyMessage;

/// Who has to do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The person who asked for the build, or who wrote the policy.
    User,
}

/// Why a source cannot be used. The texts are those that BuildKit's clients know.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// A rule that says nothing of which sources it is for.
    #[error("invalid nil selector in policy")]
    NoSelector,
    /// The rules say no.
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
    /// The client says no.
    #[error("source {identifier:?} not allowed by policy: action {action}")]
    NotAllowed {
        /// The source.
        identifier: String,
        /// What the client said, by its name in the protocol.
        action: String,
        /// What the client wants to be told to whoever builds.
        messages: Vec<DenyMessage>,
    },
    /// Conversions lead in a circle.
    #[error("too many mutations on a single source: too many operations")]
    TooManyConversions,
    /// The client asks and converts without end.
    #[error("too many policy requests")]
    TooManyQuestions,
    /// A rule cannot be compared with a source.
    #[error("error matching source policy: {0}")]
    Match(String),
    /// A rule cannot convert a source.
    #[error("error mutating source policy: {0}")]
    Convert(String),
    /// A rule wants something that no rule can.
    #[error("source policy: rule {action} {selector}: unknown type {identifier:?}")]
    UnknownAction {
        /// The number of the action.
        action: i32,
        /// What the rule is for.
        selector: String,
        /// The source.
        identifier: String,
    },
    /// The client asked about another source than the one it was asked about.
    #[error("policy requested different source {what}: {difference}")]
    OtherSource {
        /// `identifier` or `attrs`.
        what: &'static str,
        /// In what they differ.
        difference: String,
    },
    /// The client converts a source into nothing.
    #[error("convert action requires updated source")]
    NoUpdate,
    /// The client answered neither with a decision nor with a question.
    #[error("no decision in policy response")]
    NoDecision,
}

impl PolicyError {
    /// Who has to do something about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::User
    }
}
