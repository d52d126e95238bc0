//! What can this kernel run: emulators and binfmt_misc.
//!
//! Linux runs programs of other processors when `binfmt_misc` names an emulator for them. This crate finds emulators
//! ([`Emulators`]), reads and writes the kernel's entries ([`Binfmt`]), makes an instance of binfmt_misc of its own in
//! a user namespace where the machine's is not to be touched ([`PrivateBinfmt`]), and finds out what really works by
//! executing a tiny program of each architecture ([`probe`], [`detect`]). [`binfmt::run`] is the `binfmt` program.

mod advice;
pub mod binfmt;
pub mod detect;
mod emulators;
mod entries;
mod flags;
mod install;
mod magic;
mod mounted;
mod namespace;
mod persist;
pub mod probe;
mod program;
mod record;
mod repair;
pub mod status;

#[cfg(test)]
mod qemu_tests;

pub use detect::{Detection, Support, supported_platforms};
pub use emulators::{Emulator, Emulators, Version};
pub use entries::{Binfmt, DEFAULT_MOUNT, Entry, Registration};
pub use magic::{Magic, magic};
pub use mounted::TemporaryMount;
pub use namespace::{IdRange, PrivateBinfmt};
pub use program::{EXIT_BASE, program, program_of_argv0};

use std::{io, path::PathBuf};

/// Whose fault an error is, and whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The caller asked for something that cannot be.
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

/// Why emulation could not be found, set up or proven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something on the file system failed.
    #[error("{doing} {path}: {source}{end}", path = path.display(), end = advice::on_file(source))]
    File {
        /// What was being done, as "reading".
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// binfmt_misc cannot be mounted.
    #[error(
        "cannot mount binfmt_misc filesystem at {dir}: {source}{end}",
        dir = dir.display(),
        end = advice::on_mount(source)
    )]
    Mount {
        /// Where.
        dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's entries cannot be changed.
    #[error("{doing} {path}: {source}{end}", path = path.display(), end = advice::on_change(source))]
    Change {
        /// What was being done, as "opening".
        doing: &'static str,
        /// To which of the kernel's files.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another installer does not come to its end.
    #[error("another installer holds {path} for half a minute: end it (fuser {path}), then say this again", path = path.display())]
    Locked {
        /// The kernel's file that is held.
        path: PathBuf,
    },
    /// What was registered goes with this process.
    #[error(
        "binfmt_misc is mounted nowhere else, so that the kernel forgets these entries as soon as this container ends; \
         mount it on the machine itself first: mount -t binfmt_misc binfmt_misc {dir}",
        dir = DEFAULT_MOUNT
    )]
    Fleeting,
    /// binfmt_misc is not there.
    #[error("{path} is missing: is binfmt_misc mounted there? (mount -t binfmt_misc binfmt_misc {dir})", path = path.display(), dir = path.parent().unwrap_or(path).display())]
    NotMounted {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The kernel refused to register an emulator.
    #[error(
        "registering {emulator} as {name} at {register}: {source}{end}",
        emulator = emulator.display(),
        register = register.display(),
        end = advice::on_change(source)
    )]
    Register {
        /// Name of the entry.
        name: String,
        /// The emulator.
        emulator: PathBuf,
        /// File that registers.
        register: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is an entry of that name already.
    #[error("{name} already registered")]
    AlreadyRegistered {
        /// Name of the entry.
        name: String,
    },
    /// An architecture that no emulator is known for.
    #[error("unsupported architecture: {name}; known are {}", known())]
    UnknownArchitecture {
        /// What was asked for.
        name: String,
    },
    /// No emulator on this machine.
    #[error(
        "no emulator for {architecture} found: none of {names} is in {folders}; install Debian's qemu-user, or set QEMU_BINARY_PATH to the folder that has it"
    )]
    NoEmulator {
        /// OCI name.
        architecture: String,
        /// File names that were looked for.
        names: String,
        /// Folders that were searched.
        folders: String,
    },
    /// An emulator that is there but cannot serve.
    #[error("emulator {path} cannot be used: {reason}", path = path.display())]
    BadEmulator {
        /// The emulator.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry is in the way that somebody made who is not one of QEMU's installers.
    #[error(
        "{problem}; the entry {name}, which starts {interpreter}, is not one of QEMU's: --force removes it",
        interpreter = interpreter.display()
    )]
    Foreign {
        /// Name of the entry.
        name: String,
        /// What it starts.
        interpreter: PathBuf,
        /// What is wrong with the architecture.
        problem: String,
    },
    /// Nobody wrote down what was there.
    #[error("nothing to restore: nothing was changed since this machine was started, or {path} is gone", path = path.display())]
    NoRecord {
        /// Where it would be.
        path: PathBuf,
    },
    /// Entries cannot be made to stay.
    #[error("writing {path}: {reason}", path = path.display())]
    Persist {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A private binfmt_misc could not be made.
    #[error(
        "making a private binfmt_misc: {step}: {source}; this needs Linux 6.7 or newer and the right to make user namespaces"
    )]
    Namespace {
        /// What failed.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program of this architecture was executed and did not do what it should.
    #[error("a program for {architecture} does not run: {reason}")]
    DoesNotRun {
        /// OCI name.
        architecture: String,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// Names the emulator that a program did not run under.
    pub(crate) fn under(self, emulator: &std::path::Path) -> Error {
        match self {
            Self::DoesNotRun { architecture, reason } => {
                let reason = format!(
                    "{reason}; its emulator is {}: install another release of it (Debian: qemu-user-static)",
                    emulator.display()
                );
                Self::DoesNotRun { architecture, reason }
            }
            other => other,
        }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::UnknownArchitecture { .. }
            | Self::AlreadyRegistered { .. }
            | Self::Foreign { .. }
            | Self::NoRecord { .. } => Kind::User,
            _ => Kind::Environment,
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The names of architectures, for those who asked for another one.
fn known() -> String {
    let names: Vec<&str> =
        crosskit_platforms::Architecture::all().iter().map(|known| known.name.as_str()).collect();
    names.join(", ")
}

/// Puts a file in its place whole and for good, and its folder if that is missing. A failure leaves what was there.
pub(crate) fn write_whole(path: &std::path::Path, text: &[u8]) -> Result<()> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(file_error("making", folder))?;
    let new = path.with_extension("new");
    let write = || {
        let mut file = std::fs::File::create(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|source| {
        drop(std::fs::remove_file(&new));
        file_error("writing", path)(source)
    })
}

/// `map_err` argument for a file operation.
pub(crate) fn file_error(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}
