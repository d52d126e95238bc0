//! Putting right what is wrong with entries.

use crosskit_platforms::Architecture;

use crate::install::{Source, replace};
use crate::status::{Owners, State, status, takers};
use crate::{Binfmt, Entry, Error, Result, probe};

/// What came of it.
pub(crate) enum Repaired {
    /// Nothing was wrong.
    Fine,
    /// It was this.
    Was(Vec<String>),
}

/// Makes the programs of an architecture run. Entries that are not QEMU's are left alone, and so is what is in their
/// way, unless `force` says otherwise.
pub(crate) fn repair(
    binfmt: &Binfmt,
    architecture: &Architecture,
    source: &Source,
    owners: &Owners,
    force: bool,
) -> Result<Repaired> {
    let entries = binfmt.entries()?;
    let before = status(&entries, architecture, source, owners);
    if before.state.is_good() {
        return Ok(Repaired::Fine);
    }
    let native = Architecture::native().is_some_and(|host| host.name == architecture.name);
    let standard = source.entry_name(architecture);
    let (takers, foreign): (Vec<&Entry>, Vec<&Entry>) =
        takers(&entries, architecture).into_iter().partition(|entry| is_qemus(entry, architecture));
    match foreign.first() {
        Some(first) if !force => {
            return Err(Error::Foreign {
                name: first.name.clone(),
                interpreter: first.interpreter.clone(),
                problem: before.problems.join("; "),
            });
        }
        // At first: one that takes the processor's own programs as well lets nothing be tried.
        _ => foreign.iter().try_for_each(|entry| binfmt.unregister(&entry.name))?,
    }
    if native {
        for entry in &takers {
            binfmt.unregister(&entry.name)?;
        }
    } else {
        let own = takers.iter().copied().find(|entry| entry.name == standard);
        if let (State::Disabled, Some(own)) = (before.state, own) {
            binfmt.enable(&own.name, true)?;
        }
        let again = status(&binfmt.entries()?, architecture, source, owners);
        if again.entry.as_ref() != Some(&standard) || !matches!(again.state, State::Ok | State::Shadowed) {
            replace(binfmt, own, architecture, &source.registration(architecture)?)?;
        }
        for entry in takers.iter().filter(|entry| entry.name != standard) {
            binfmt.unregister(&entry.name)?;
        }
    }
    probe::run(architecture)?;
    let after = status(&binfmt.entries()?, architecture, source, owners);
    match after.state.is_good() {
        true => Ok(Repaired::Was(before.problems)),
        false => {
            let reason = after.problems.join("; ");
            Err(Error::DoesNotRun { architecture: architecture.name.clone(), reason })
        }
    }
}

/// Whether an entry is of a kind that installers of QEMU make: the name or the emulator's file says so.
fn is_qemus(entry: &Entry, architecture: &Architecture) -> bool {
    let named = |name: &str| {
        let mut words = name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let qemu = name.starts_with("qemu-") || name.contains("-qemu-");
        qemu && words.any(|word| word == architecture.qemu)
    };
    let file = entry.interpreter.file_name().map(|name| name.to_string_lossy().into_owned());
    named(&entry.name) || file.is_some_and(|file| named(&file))
}
