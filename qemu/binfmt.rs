//! The `binfmt` program: installs, removes and lists emulators.

use std::{ffi::OsString, io::Write, path::PathBuf};

use crosskit_platforms::{Architecture, Platform};

use crate::{
    Binfmt, Emulator, Emulators, Error, Registration, Result,
    flags::{self, Flags, Stop},
    probe, supported_platforms,
};

/// What the program takes from its environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `QEMU_BINARY_PATH`: the one folder to take emulators from.
    pub binary_path: Option<OsString>,
    /// `QEMU_BINARY_PREFIX`: put before each emulator's file name and its entry's name.
    pub binary_prefix: Option<String>,
    /// `QEMU_PRESERVE_ARGV0`: register with flag P also where emulator and kernel are too old to agree on it.
    pub preserve_argv0: bool,
}

impl Environment {
    /// From this process's variables.
    pub fn from_process() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            binary_path: set("QEMU_BINARY_PATH"),
            binary_prefix: set("QEMU_BINARY_PREFIX").map(|value| value.to_string_lossy().into_owned()),
            preserve_argv0: set("QEMU_PRESERVE_ARGV0").is_some(),
        }
    }
}

/// Runs the program with these arguments (without its name), this process's environment and the streams given. Returns
/// the exit code: 0 if all that was asked for works, 1 if some of it does not, 2 for wrong arguments.
pub fn run(args: &[String], stdout: &mut dyn Write, stderr: &mut dyn Write) -> i32 {
    run_with(args, &Environment::from_process(), stdout, stderr)
}

/// [`run`] with an environment given.
pub fn run_with(args: &[String], env: &Environment, stdout: &mut dyn Write, stderr: &mut dyn Write) -> i32 {
    let flags = match flags::parse(args) {
        Ok(flags) => flags,
        Err(Stop::Help) => {
            let _ = write!(stderr, "{}", flags::USAGE);
            return 0;
        }
        Err(Stop::Wrong(what)) => {
            let _ = write!(stderr, "{what}\n{}", flags::USAGE);
            return 2;
        }
    };
    let mut all_done = true;
    let outcome = if flags.version {
        version(env, stderr)
    } else {
        perform(&flags, env, stdout, stderr, &mut all_done)
    };
    if let Err(error) = outcome {
        let _ = writeln!(stderr, "error: {error}");
        return 1;
    }
    i32::from(!all_done)
}

fn version(env: &Environment, stderr: &mut dyn Write) -> Result<()> {
    let source = Source::new(env)?;
    let qemu = Architecture::all().iter().find_map(|known| source.emulator(known).ok()?.version().ok());
    let qemu = qemu.map_or("none".to_owned(), |version| version.to_string());
    let _ = writeln!(stderr, "binfmt/{} qemu/{qemu}", env!("CARGO_PKG_VERSION"));
    Ok(())
}

fn perform(
    flags: &Flags,
    env: &Environment,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    all_done: &mut bool,
) -> Result<()> {
    let source = Source::new(env)?;
    let binfmt = Binfmt::at(&flags.mount);
    let mounted = binfmt.mount()?;
    let mut installed = false;
    for name in &flags.uninstall {
        for (name, outcome) in uninstall(&binfmt, name) {
            *all_done &= outcome.is_ok();
            match outcome {
                Ok(()) => _ = writeln!(stderr, "uninstalling: {name} OK"),
                Err(reason) => _ = writeln!(stderr, "uninstalling: {name} {reason}"),
            }
        }
    }
    for name in wanted(&flags.install, &source) {
        match install(&binfmt, &name, &source, env.preserve_argv0) {
            Ok(Installed::Now) => {
                installed = true;
                let _ = writeln!(stderr, "installing: {name} OK");
            }
            Ok(Installed::Before(entry)) => {
                _ = writeln!(stderr, "installing: {name} {entry} already registered")
            }
            Ok(Installed::Unneeded) => {
                _ = writeln!(stderr, "installing: {name} runs natively, nothing to do")
            }
            Err(error) => {
                *all_done = false;
                let _ = writeln!(stderr, "installing: {name} {error}");
            }
        }
    }
    let supported: Vec<String> = supported_platforms().iter().map(|p| p.normalize().format_all()).collect();
    let emulators: Vec<String> =
        binfmt.entries()?.into_iter().filter(|entry| entry.enabled).map(|entry| entry.name).collect();
    let listing = Listing { supported, emulators: (!emulators.is_empty()).then_some(emulators) };
    let text = serde_json::to_string_pretty(&listing).unwrap_or_default();
    let _ = writeln!(stdout, "{text}");
    if let (Some(mounted), true) = (mounted, installed) {
        mounted.keep();
    }
    Ok(())
}

/// What the program prints; field order and `null` for no emulators are what others parse.
#[derive(serde::Serialize)]
struct Listing {
    supported: Vec<String>,
    emulators: Option<Vec<String>>,
}

/// Where emulators come from and what their entries are called.
struct Source {
    emulators: Emulators,
    folder: Option<PathBuf>,
    prefix: String,
}

impl Source {
    fn new(env: &Environment) -> Result<Self> {
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
        Ok(Self { emulators, folder, prefix })
    }

    /// With a prefix exactly that file, else what discovery finds.
    fn emulator(&self, architecture: &Architecture) -> Result<Emulator> {
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

    fn entry_name(&self, architecture: &Architecture) -> String {
        format!("{}qemu-{}", self.prefix, architecture.qemu)
    }
}

/// What `--install` names: `all` is every architecture that does not run yet and has an emulator here.
fn wanted(asked: &[String], source: &Source) -> Vec<String> {
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
            names.push(Platform::parse(name).map_or_else(|_| name.clone(), |platform| platform.architecture));
        }
    }
    names
}

enum Installed {
    Now,
    Before(String),
    Unneeded,
}

/// Registers the emulator of one architecture and proves it by executing a program. An entry that does not work is
/// replaced; one of ours that turns out not to work is taken back.
fn install(binfmt: &Binfmt, name: &str, source: &Source, preserve_argv0: bool) -> Result<Installed> {
    let architecture =
        Architecture::by_name(name).ok_or_else(|| Error::UnknownArchitecture { name: name.to_owned() })?;
    let native = Architecture::native().is_some_and(|host| host.may_run_natively(architecture));
    if native && probe::run(architecture).is_ok() {
        return Ok(Installed::Unneeded);
    }
    let entry = source.entry_name(architecture);
    let present = binfmt.entry(&entry)?;
    if present.is_some() && probe::run(architecture).is_ok() {
        return Ok(Installed::Before(entry));
    }
    let emulator = source.emulator(architecture)?;
    let version = emulator.check()?;
    if present.is_some() {
        binfmt.unregister(&entry)?;
    }
    let preserve_argv0 = preserve_argv0 || Emulator::keeps_argv0(version);
    let registration =
        Registration { name: entry, ..Registration::new(architecture, &emulator.path, preserve_argv0) };
    binfmt.register(&registration)?;
    if let Err(error) = probe::run(architecture) {
        binfmt.unregister(&registration.name)?;
        return Err(error);
    }
    Ok(Installed::Now)
}

/// Removes what a name stands for: an architecture, an entry, the end of an entry's name, or a pattern with `*`.
fn uninstall(binfmt: &Binfmt, asked: &str) -> Vec<(String, Result<(), String>)> {
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
