//! Putting entries in, and taking them out.

use std::path::PathBuf;

use crosskit_platforms::{Architecture, Platform};

use crate::binfmt::Environment;
use crate::status::takers;
use crate::{Binfmt, Emulator, Emulators, Entry, Error, Registration, Result, probe, supported_platforms};

/// Where emulators come from and what their entries are called.
pub(crate) struct Source {
    emulators: Emulators,
    folder: Option<PathBuf>,
    prefix: String,
    preserve_argv0: bool,
}

impl Source {
    pub(crate) fn new(env: &Environment) -> Result<Self> {
        let prefix = env.binary_prefix.clone().unwrap_or_default();
        if prefix.contains('/') {
            let reason = "binary prefix must not contain path separator (Hint: set $QEMU_BINARY_PATH to specify the \
                          directory)";
            return Err(Error::BadEmulator { path: prefix.into(), reason: reason.to_owned() });
        }
        let folder = env.binary_path.clone().map(PathBuf::from);
        let emulators = match &folder {
            Some(folder) => Emulators::in_folders(vec![folder.clone()]),
            None => Emulators::find(&[]),
        };
        Ok(Self { emulators, folder, prefix, preserve_argv0: env.preserve_argv0 })
    }

    /// With a prefix exactly that file, else what discovery finds.
    pub(crate) fn emulator(&self, architecture: &Architecture) -> Result<Emulator> {
        if self.prefix.is_empty() {
            return self.emulators.get(architecture).cloned();
        }
        let folder = self.folder.clone().unwrap_or_else(|| "/usr/bin".into());
        let path = folder.join(self.entry_name(architecture));
        if !path.exists() {
            return Err(Error::NoEmulator {
                architecture: architecture.name.clone(),
                names: self.entry_name(architecture),
                folders: folder.display().to_string(),
            });
        }
        Ok(Emulator { architecture: architecture.name.clone(), path })
    }

    pub(crate) fn entry_name(&self, architecture: &Architecture) -> String {
        format!("{}qemu-{}", self.prefix, architecture.qemu)
    }

    /// Whether somebody wants names that are not the usual ones.
    pub(crate) fn is_prefixed(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// The entry for an architecture, with an emulator that was checked.
    pub(crate) fn registration(&self, architecture: &Architecture) -> Result<Registration> {
        let emulator = self.emulator(architecture)?;
        let version = emulator.check()?;
        let preserve_argv0 = self.preserve_argv0 || Emulator::keeps_argv0(version);
        let name = self.entry_name(architecture);
        Ok(Registration { name, ..Registration::new(architecture, &emulator.path, preserve_argv0) })
    }
}

/// The architecture's own name, however it is spelled.
fn plain(name: &str) -> String {
    Platform::parse(name).map_or_else(|_| name.to_owned(), |platform| platform.architecture)
}

/// The architecture that a name stands for.
pub(crate) fn named(name: &str) -> Result<&'static Architecture> {
    let name = plain(name);
    Architecture::by_name(&name).ok_or(Error::UnknownArchitecture { name })
}

/// What `--install` names: `all` is every architecture that does not run yet and has an emulator here.
pub(crate) fn wanted(asked: &[String], source: &Source) -> Vec<String> {
    let mut names = Vec::new();
    for name in asked {
        if name == "all" {
            let running = supported_platforms();
            let missing = Architecture::all().iter().filter(|known| {
                running.iter().all(|platform| platform.architecture != known.name)
                    && source.emulator(known).is_ok()
            });
            names.extend(missing.map(|known| known.name.clone()));
        } else {
            names.push(plain(name));
        }
    }
    names
}

/// What became of an architecture that was to be installed.
pub(crate) enum Installed {
    Now,
    Before(String),
    Unneeded,
}

/// Whether the processor runs its programs by itself.
pub(crate) fn runs_natively(architecture: &Architecture) -> bool {
    Architecture::native().is_some_and(|host| host.may_run_natively(architecture))
        && probe::run(architecture).is_ok()
}

/// Registers the emulator of one architecture and proves it by executing a program. An entry that does not work is
/// replaced; one of ours that turns out not to work is taken back.
pub(crate) fn install(binfmt: &Binfmt, name: &str, source: &Source) -> Result<Installed> {
    let architecture =
        Architecture::by_name(name).ok_or_else(|| Error::UnknownArchitecture { name: name.to_owned() })?;
    if runs_natively(architecture) {
        return Ok(Installed::Unneeded);
    }
    let entry = source.entry_name(architecture);
    let entries = binfmt.entries()?;
    let present = entries.iter().find(|known| known.name == entry);
    // One of another name that does it is left to do it: two would be in each other's way. Who wants a name of their
    // own gets one.
    let takers = takers(&entries, architecture);
    let other = takers.iter().find(|taker| taker.enabled && !source.is_prefixed()).copied();
    if let Some(there) = present.or(other)
        && probe::run(architecture).is_ok()
    {
        return Ok(Installed::Before(there.name.clone()));
    }
    replace(binfmt, present, architecture, &source.registration(architecture)?)?;
    Ok(Installed::Now)
}

/// Puts an entry in the place of another, if there is one. The new one is tried under another name first, which the
/// kernel prefers as long as both are there: a failure leaves the old one alone, and programs find one at any time.
pub(crate) fn replace(
    binfmt: &Binfmt,
    old: Option<&Entry>,
    architecture: &Architecture,
    wanted: &Registration,
) -> Result<()> {
    let trial = Registration { name: format!("{}-trial", wanted.name), ..wanted.clone() };
    if binfmt.entry(&trial.name)?.is_some() {
        // Left by an installer that was killed.
        binfmt.unregister(&trial.name)?;
    }
    binfmt.register(&trial)?;
    let tried = probe::run(architecture).map_err(|error| error.under(&wanted.emulator));
    let done = tried.map(drop).and_then(|()| {
        if let Some(old) = old {
            binfmt.unregister(&old.name)?;
        }
        binfmt.register(wanted)
    });
    if let (Err(_), Some(old)) = (&done, old)
        && binfmt.entry(&old.name)?.is_none()
    {
        binfmt.register_again(old)?;
    }
    binfmt.unregister(&trial.name)?;
    done
}

/// Removes what a name stands for: an architecture, an entry, the end of an entry's name, or a pattern with `*`.
pub(crate) fn uninstall(binfmt: &Binfmt, asked: &str) -> Vec<(String, Result<(), String>)> {
    let present = match binfmt.entries() {
        Ok(entries) => entries,
        Err(error) => return vec![(asked.to_owned(), Err(error.to_string()))],
    };
    let named =
        Platform::parse(asked).ok().and_then(|platform| Architecture::by_name(&platform.architecture));
    let wanted = named.map_or(asked, |known| known.qemu.as_str());
    let mut names: Vec<String> = present
        .iter()
        .map(|entry| &entry.name)
        // Windows Subsystem for Linux starts Windows programs by this one.
        .filter(|name| name.as_str() != "WSLInterop")
        .filter(|name| {
            matches(wanted, name) || name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('-'))
        })
        .cloned()
        .collect();
    if !wanted.contains('*') {
        names.truncate(1);
    }
    if names.is_empty() {
        return vec![(asked.to_owned(), Err("not found".to_owned()))];
    }
    names
        .into_iter()
        .map(|name| {
            let outcome = binfmt.unregister(&name).map_err(|error| error.to_string());
            (name, outcome)
        })
        .collect()
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}
