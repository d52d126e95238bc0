//! What can go wrong before, around and instead of a process.

use std::{io, path::PathBuf};

/// Whose fault an error is, and whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The build asked for something that cannot be.
    User,
    /// This machine lacks something or refuses it.
    Environment,
    /// Not now; later perhaps.
    Unavailable,
    /// Somebody no longer wanted it.
    Canceled,
    /// A fault of this program.
    Internal,
}

/// Why a process could not be run. A process that ran and failed is no error: see [`crate::Exit`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No runtime works on this machine.
    #[error("no OCI runtime works here: {tried}; install crun or runc, or name one in [worker.oci] binary")]
    NoRuntime {
        /// Each candidate and why it does not work.
        tried: String,
    },
    /// Nothing here executes programs of the platform.
    #[error(
        "nothing on this machine can run {platform}: {reason}; get an emulator with: binfmt --install {architecture}"
    )]
    CannotRun {
        /// The platform asked for.
        platform: String,
        /// OCI architecture.
        architecture: String,
        /// What was found.
        reason: String,
    },
    /// A user that the root filesystem does not know.
    #[error("unable to find user {name}: {reason}")]
    NoUser {
        /// As asked for.
        name: String,
        /// What was looked for in vain.
        reason: String,
    },
    /// A group that the root filesystem does not know.
    #[error("unable to find group {name}: no matching entries in group file")]
    NoGroup {
        /// As asked for.
        name: String,
    },
    /// A value of the process's description that means nothing.
    #[error("{what} {value:?} is not valid: {reason}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// As asked for.
        value: String,
        /// What it must be.
        reason: String,
    },
    /// A device cannot be given to the process.
    #[error("CDI device injection failed: {why}")]
    Device {
        /// What is in the way.
        why: String,
    },
    /// The network of sandboxes cannot be set up.
    #[error("{doing}: {why}")]
    Network {
        /// What was being done, to what.
        doing: String,
        /// What is in the way.
        why: String,
    },
    /// A plugin that makes networks failed.
    #[error("CNI setup error: plugin {plugin} ({command}): {why}")]
    Plugin {
        /// Its program.
        plugin: String,
        /// What it was to do: `ADD` or `DEL`.
        command: &'static str,
        /// What it said.
        why: String,
    },
    /// An operation inside the root filesystem failed.
    #[error("{doing} {path} in the root filesystem: {source}")]
    Rootfs {
        /// What was being done, as "reading".
        doing: &'static str,
        /// Path inside the root filesystem.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An operation on a file of our own failed.
    #[error("{doing} {path}: {source}", path = path.display())]
    File {
        /// What was being done, as "writing".
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The runtime could not be started or watched.
    #[error("{doing} {runtime}: {source}", runtime = runtime.display())]
    Spawn {
        /// What was being done, as "starting".
        doing: &'static str,
        /// The runtime's program.
        runtime: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is a container of this id already.
    #[error("container {id} exists already")]
    Exists {
        /// Its id.
        id: String,
    },
    /// The container has ended, or never began to run.
    #[error("container {id} is not running")]
    NotRunning {
        /// Its id.
        id: String,
    },
    /// A pseudo terminal could not be had.
    #[error("{doing} a terminal for container {id}: {source}")]
    Terminal {
        /// What was being done.
        doing: &'static str,
        /// The container.
        id: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It was canceled; the process and everything it started is gone.
    #[error("context canceled")]
    Canceled,
    /// A task of this program ended in a way it never should.
    #[error("a task that ran container {id} broke: {reason}")]
    Broken {
        /// The container.
        id: String,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoUser { .. } | Self::NoGroup { .. } | Self::Invalid { .. } | Self::Rootfs { .. } => {
                Kind::User
            }
            Self::NotRunning { .. } => Kind::Unavailable,
            Self::Canceled => Kind::Canceled,
            Self::Exists { .. } | Self::Broken { .. } => Kind::Internal,
            _ => Kind::Environment,
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `map_err` argument for an operation on a file of our own.
pub(crate) fn file_error(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}
