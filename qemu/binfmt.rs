//! The `binfmt` program: installs, removes and lists emulators.

use std::{ffi::OsString, io::Write, path::PathBuf};

use crosskit_platforms::Architecture;

use crate::flags::{self, Flags, Stop};
use crate::install::{Installed, Source, install, named, uninstall, wanted};
use crate::mounted::Mounting;
use crate::record::Record;
use crate::repair::{Repaired, repair};
use crate::status::{Owners, State, Status, status, table, takers};
use crate::{Binfmt, Result, persist, supported_platforms};

/// What the program takes from its environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `QEMU_BINARY_PATH`: the one folder to take emulators from.
    pub binary_path: Option<OsString>,
    /// `QEMU_BINARY_PREFIX`: put before each emulator's file name and its entry's name.
    pub binary_prefix: Option<String>,
    /// `QEMU_PRESERVE_ARGV0`: register with flag P also where emulator and kernel are too old to agree on it.
    pub preserve_argv0: bool,
    /// The root of the machine, below which the record of changes and `binfmt.d` are; empty for `/`.
    pub root: PathBuf,
}

impl Environment {
    /// From this process's variables.
    pub fn from_process() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            binary_path: set("QEMU_BINARY_PATH"),
            binary_prefix: set("QEMU_BINARY_PREFIX").map(|value| value.to_string_lossy().into_owned()),
            preserve_argv0: set("QEMU_PRESERVE_ARGV0").is_some(),
            root: PathBuf::new(),
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
    let mut work = Work::begin(flags, env)?;
    let mut say = |line: String| _ = writeln!(stderr, "{line}");
    let mounting = Mounting::begin(&work.binfmt, flags.changes(), &work.root, &mut say)?;
    // Two installers at once see each other's entries whole.
    let locked = work.binfmt.lock(flags.changes() || flags.restore)?;
    let record = flags.changes().then(|| Record::begin(&work.root, &work.binfmt)).transpose()?;
    let done = work.carry_out(all_done, &mut say);
    if let Some(record) = record
        && let Err(error) = record.finish(&work.root, &work.binfmt)
    {
        say(format!("warning: --restore will not know what was there before: {error}"));
    }
    let done = done.and_then(|()| work.show(stdout));
    drop(locked);
    let lasts = mounting.end(work.installed, &mut say);
    done.and(lasts)
}

fn restore(work: &Work<'_>, say: &mut dyn FnMut(String)) -> Result<()> {
    let (removed, added) = Record::restore(&work.root, &work.binfmt)?;
    removed.iter().for_each(|name| say(format!("restoring: {name} removed")));
    added.iter().for_each(|name| say(format!("restoring: {name} is back")));
    if removed.is_empty() && added.is_empty() {
        say("restoring: nothing has changed".to_owned());
    }
    Ok(())
}

/// What is done in one call.
struct Work<'a> {
    flags: &'a Flags,
    source: Source,
    binfmt: Binfmt,
    root: PathBuf,
    owners: Owners,
    /// Whether entries were put in.
    installed: bool,
}

impl<'a> Work<'a> {
    fn begin(flags: &'a Flags, env: &Environment) -> Result<Self> {
        let root = if env.root.as_os_str().is_empty() { PathBuf::from("/") } else { env.root.clone() };
        let binfmt = Binfmt::at(&flags.mount);
        let ours = Record::read(&root, &binfmt)?.map(|record| record.ours).unwrap_or_default();
        let owners = Owners::below(&root, ours);
        Ok(Self {
            flags,
            source: Source::new(env)?,
            binfmt: Binfmt::at(&flags.mount),
            root,
            owners,
            installed: false,
        })
    }

    fn carry_out(&mut self, all_done: &mut bool, say: &mut dyn FnMut(String)) -> Result<()> {
        if self.flags.restore {
            restore(self, say)?;
        }
        *all_done &= self.uninstall(say)?;
        self.install(all_done, say);
        *all_done &= self.repair(say)?;
        *all_done &= self.verify(say)?;
        if self.flags.persist {
            let (path, count) = persist::persist(&self.root, &self.binfmt)?;
            say(format!("persisting: {count} entries in {}", path.display()));
        }
        Ok(())
    }

    /// What the program prints.
    fn show(&self, stdout: &mut dyn Write) -> Result<()> {
        let found = if self.flags.status { Some(self.statuses(&self.everything()?)?) } else { None };
        let text = match (found, self.flags.json) {
            (None, _) => serde_json::to_string_pretty(&self.listing()?).unwrap_or_default() + "\n",
            (Some(found), true) => serde_json::to_string_pretty(&found).unwrap_or_default() + "\n",
            (Some(found), false) => table(&found),
        };
        let _ = write!(stdout, "{text}");
        Ok(())
    }

    fn listing(&self) -> Result<Listing> {
        let supported = supported_platforms().iter().map(|p| p.normalize().format_all()).collect();
        let enabled = self.binfmt.entries()?.into_iter().filter(|entry| entry.enabled);
        let emulators: Vec<String> = enabled.map(|entry| entry.name).collect();
        Ok(Listing { supported, emulators: (!emulators.is_empty()).then_some(emulators) })
    }

    fn uninstall(&mut self, say: &mut dyn FnMut(String)) -> Result<bool> {
        let (mut all_done, mut gone) = (true, Vec::new());
        for name in &self.flags.uninstall {
            for (name, outcome) in uninstall(&self.binfmt, name) {
                all_done &= outcome.is_ok();
                match outcome {
                    Ok(()) => {
                        say(format!("uninstalling: {name} OK"));
                        gone.push(name);
                    }
                    Err(reason) => say(format!("uninstalling: {name} {reason}")),
                }
            }
        }
        persist::forget(&self.root, &gone)?;
        Ok(all_done)
    }

    fn install(&mut self, all_done: &mut bool, say: &mut dyn FnMut(String)) {
        for name in wanted(&self.flags.install, &self.source) {
            say(match install(&self.binfmt, &name, &self.source) {
                Ok(Installed::Now) => {
                    self.installed = true;
                    format!("installing: {name} OK")
                }
                Ok(Installed::Before(entry)) => format!("installing: {name} {entry} already registered"),
                Ok(Installed::Unneeded) => format!("installing: {name} runs natively, nothing to do"),
                Err(error) => {
                    *all_done = false;
                    format!("installing: {name} {error}")
                }
            });
        }
    }

    fn repair(&self, say: &mut dyn FnMut(String)) -> Result<bool> {
        let mut all_done = true;
        for architecture in self.asked(&self.flags.repair)? {
            let name = &architecture.name;
            match repair(&self.binfmt, architecture, &self.source, &self.owners, self.flags.force) {
                Ok(Repaired::Fine) => say(format!("repairing: {name} nothing to do")),
                Ok(Repaired::Was(problems)) => say(format!("repairing: {name} OK ({})", problems.join("; "))),
                Err(error) => {
                    all_done = false;
                    say(format!("repairing: {name} {error}"));
                }
            }
        }
        Ok(all_done)
    }

    fn verify(&self, say: &mut dyn FnMut(String)) -> Result<bool> {
        let mut all_done = true;
        for found in self.statuses(&self.asked(&self.flags.verify)?)? {
            let Status { architecture: name, state, problems, argv0, .. } = &found;
            all_done &= state.is_good();
            say(match (state, argv0) {
                (State::Ok, Some(false)) => format!("verifying: {name} OK (argv[0] is not kept)"),
                (State::Ok, _) => format!("verifying: {name} OK"),
                (State::Native, _) => format!("verifying: {name} runs natively"),
                _ => format!("verifying: {name} {state}: {}", problems.join("; ")),
            });
        }
        Ok(all_done)
    }

    fn statuses(&self, of: &[&'static Architecture]) -> Result<Vec<Status>> {
        let entries = self.binfmt.entries()?;
        Ok(of.iter().map(|known| status(&entries, known, &self.source, &self.owners)).collect())
    }

    /// The architectures that names stand for; `all` for those that have an entry.
    fn asked(&self, names: &[String]) -> Result<Vec<&'static Architecture>> {
        let mut found = Vec::new();
        for name in names {
            match name.as_str() {
                "all" => {
                    let entries = self.binfmt.entries()?;
                    let taken = |known: &&Architecture| !takers(&entries, known).is_empty();
                    found.extend(Architecture::all().iter().filter(taken));
                }
                name => found.push(named(name)?),
            }
        }
        Ok(found)
    }

    /// What a table of all has: those beyond the usual ones only where something is there for them.
    fn everything(&self) -> Result<Vec<&'static Architecture>> {
        let entries = self.binfmt.entries()?;
        let worth = |known: &&Architecture| {
            let taken = || !takers(&entries, known).is_empty();
            !known.beyond || taken() || self.source.emulator(known).is_ok()
        };
        Ok(Architecture::all().iter().filter(worth).collect())
    }
}

/// What the program prints; field order and `null` for no emulators are what others parse.
#[derive(serde::Serialize)]
struct Listing {
    supported: Vec<String>,
    emulators: Option<Vec<String>>,
}
