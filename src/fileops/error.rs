//! What can go wrong with file operations.

use rustix::io::Errno;

/// Whose matter an error is; the snapshots' own words.
pub use crosskit_snapshots::Kind;

/// What can go wrong with file operations. The texts about paths are those that builders of the
/// field print, since people and tests look for them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path could not be worked on.
    #[error("{op} {}: {}", shown(path), text(*errno))]
    Path {
        /// The operation, by the name of its system call.
        op: &'static str,
        /// The path within the snapshot.
        path: Vec<u8>,
        /// Why it failed.
        errno: Errno,
    },
    /// More about where an error happened.
    #[error("{doing}: {source}")]
    While {
        /// What was being done.
        doing: String,
        /// What happened.
        source: Box<Error>,
    },
    /// A wildcard matched nothing.
    #[error("{path} not found")]
    NothingMatched {
        /// The path with its wildcards.
        path: String,
    },
    /// A file was to take the place of a folder.
    #[error("cannot replace to directory {} with file", shown(path))]
    FolderInTheWay {
        /// The folder.
        path: Vec<u8>,
    },
    /// A folder was to take the place of something else.
    #[error("cannot copy to non-directory: {}", shown(path))]
    NotAFolder {
        /// What is there.
        path: Vec<u8>,
    },
    /// A chain of symbolic links has no end.
    #[error("too many links: {}", shown(path))]
    TooManyLinks {
        /// Where it was met.
        path: Vec<u8>,
    },
    /// Nothing was named to be removed.
    #[error("rmPath: invalid empty path")]
    EmptyPath,
    /// Include or exclude patterns are malformed.
    #[error("invalid {list}: [{}]: {source}", patterns.join(" "))]
    Patterns {
        /// Which list.
        list: &'static str,
        /// Its patterns.
        patterns: Vec<String>,
        /// What is wrong.
        source: crosskit_patterns::PatternError,
    },
    /// A symbolic mode is malformed.
    #[error("invalid mode {mode:?}: it must be octal, or clauses such as u+x,go=rX")]
    Mode {
        /// The mode.
        mode: String,
    },
    /// A file of user or group names is no proper file.
    #[error("{path}: {reason}")]
    Names {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An archive cannot be unpacked.
    #[error("failed to unpack {path}: {reason}")]
    Archive {
        /// The archive.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An operation's indices or fields contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// A snapshot could not be used.
    #[error(transparent)]
    Snapshot(#[from] crosskit_snapshots::Error),
    /// The work was given up on request.
    #[error("canceled")]
    Canceled,
}

/// What file operations give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whose matter it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Path { errno, .. } => match *errno {
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::EXIST
                | Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::NOTEMPTY
                | Errno::INVAL => Kind::User,
                _ => Kind::Environment,
            },
            Error::While { source, .. } => source.kind(),
            Error::Snapshot(e) => e.kind(),
            Error::Canceled => Kind::Canceled,
            _ => Kind::User,
        }
    }

    pub(crate) fn path(op: &'static str, path: &[u8], errno: Errno) -> Error {
        Error::Path { op, path: path.to_vec(), errno }
    }

    pub(crate) fn during(self, doing: impl Into<String>) -> Error {
        Error::While { doing: doing.into(), source: Box::new(self) }
    }
}

/// A path within a snapshot, with the slash in front that people give it.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.starts_with('/') { text.into_owned() } else { format!("/{text}") }
}

/// The system's word for an error, as Go prints it: in lower case and without its number.
fn text(errno: Errno) -> String {
    let full = std::io::Error::from(errno).to_string();
    let text = full.split(" (os error").next().unwrap_or(&full);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
