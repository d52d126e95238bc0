//! What holds for each architecture: which entry takes its programs, and whether they run.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crosskit_platforms::Architecture;
use serde::Serialize;

use crate::install::{Source, runs_natively};
use crate::mounted::is_container;
use crate::probe::{Proof, prove};
use crate::{Emulator, Entry, program};

/// How it is about an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The processor runs its programs.
    Native,
    /// An entry's emulator runs them, wherever they are.
    Ok,
    /// No entry takes them; there is an emulator for them.
    Missing,
    /// No entry takes them, and there is no emulator.
    Unavailable,
    /// An entry takes them and is switched off.
    Disabled,
    /// An emulator is started and the program does not run.
    Broken,
    /// They run here and not in a container: the emulator is sought in the container (flag F is missing).
    Loose,
    /// They run, but the emulator's file is gone or another one: nothing brings the entry back after a restart.
    Stale,
    /// Several entries want them, or an emulator takes the processor's own programs.
    Shadowed,
}

impl State {
    /// Whether builds for the architecture can be relied on.
    pub fn is_good(self) -> bool {
        matches!(self, State::Native | State::Ok)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

/// What is known of an architecture's programs here.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// OCI name.
    pub architecture: String,
    /// Whether they run.
    pub state: State,
    /// The entry that takes them.
    pub entry: Option<String>,
    /// Its emulator.
    pub interpreter: Option<PathBuf>,
    /// The emulator's release, where it can be asked.
    pub version: Option<String>,
    /// The entry's flags.
    pub flags: String,
    /// Who put the entry there, as far as that can be seen: `crosskit`, a file of `binfmt.d`, `binfmt-support`.
    pub owner: Option<String>,
    /// Whether programs see the name that they are called by; none where they do not run.
    pub argv0: Option<bool>,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
}

/// Where others keep what they register.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    root: PathBuf,
    ours: Vec<String>,
}

impl Owners {
    pub(crate) fn below(root: &Path, ours: Vec<String>) -> Self {
        Self { root: root.to_owned(), ours }
    }

    /// Whether this is a container, and the emulators of the machine's entries are not in it.
    fn are_elsewhere(&self) -> bool {
        is_container(&self.root)
    }

    fn of(&self, entry: &str) -> Option<String> {
        if self.ours.iter().any(|name| name == entry) {
            return Some("crosskit".to_owned());
        }
        for folder in ["etc/binfmt.d", "run/binfmt.d", "usr/local/lib/binfmt.d", "usr/lib/binfmt.d"] {
            for file in std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                let text = std::fs::read_to_string(file.path()).unwrap_or_default();
                let names = text.lines().filter_map(|line| {
                    let separator = line.chars().next().filter(|c| !matches!(c, '#' | ';'))?;
                    line.split(separator).nth(1)
                });
                if names.into_iter().any(|name| name == entry) {
                    return Some(format!("/{folder}/{}", file.file_name().to_string_lossy()));
                }
            }
        }
        let support = self.root.join("var/lib/binfmts").join(entry).exists();
        support.then(|| "binfmt-support".to_owned())
    }
}

/// Looks at one architecture, with the entries that there are. Runs up to six small processes.
pub(crate) fn status(
    entries: &[Entry],
    architecture: &Architecture,
    source: &Source,
    owners: &Owners,
) -> Status {
    let takers = takers(entries, architecture);
    let standard = source.entry_name(architecture);
    let enabled: Vec<&Entry> = takers.iter().copied().filter(|entry| entry.enabled).collect();
    let main = enabled.iter().find(|entry| entry.name == standard).or(enabled.first()).copied();
    let main = main.or(takers.first().copied());
    let mut found = Status {
        architecture: architecture.name.clone(),
        state: State::Ok,
        entry: main.map(|entry| entry.name.clone()),
        interpreter: main.map(|entry| entry.interpreter.clone()),
        version: None,
        flags: main.map(|entry| entry.flags.clone()).unwrap_or_default(),
        owner: main.and_then(|entry| owners.of(&entry.name)),
        argv0: None,
        problems: Vec::new(),
    };
    let native = Architecture::native().is_some_and(|host| host.name == architecture.name);
    let Some(main) = main.filter(|_| !enabled.is_empty()) else {
        return without_entry(found, main, architecture, source, native);
    };
    if native {
        found.state = State::Shadowed;
        found.problems.push(format!("{} takes the programs that this processor runs by itself", main.name));
        return found;
    }
    let emulator = Emulator { architecture: architecture.name.clone(), path: main.interpreter.clone() };
    let checked = emulator.check();
    found.version = emulator.version().ok().map(|version| version.to_string());
    let proof = prove(architecture);
    found.argv0 = proof.alone.is_ok().then_some(proof.argv0);
    found.state = judged(&mut found.problems, &proof, main);
    let there = main.interpreter.exists();
    if found.state == State::Ok && !there && owners.are_elsewhere() {
        // The kernel holds it, and where it is a container does not see.
    } else if found.state == State::Ok && !there {
        found.state = State::Stale;
        let path = main.interpreter.display();
        found.problems.push(format!("{path} is gone: the kernel holds it until the next restart"));
    } else if let (State::Ok, Err(error)) = (found.state, &checked) {
        found.state = State::Stale;
        found.problems.push(error.to_string());
    }
    let others: Vec<&str> =
        enabled.iter().filter(|entry| entry.name != main.name).map(|e| e.name.as_str()).collect();
    if !others.is_empty() {
        if found.state == State::Ok {
            found.state = State::Shadowed;
        }
        found.problems.push(format!("{} takes its programs as well", others.join(", ")));
    }
    found
}

/// The entries that take an architecture's programs.
pub(crate) fn takers<'a>(entries: &'a [Entry], architecture: &Architecture) -> Vec<&'a Entry> {
    let image = program(architecture).unwrap_or_default();
    entries.iter().filter(|entry| entry.takes(&image)).collect()
}

fn without_entry(
    mut found: Status,
    disabled: Option<&Entry>,
    architecture: &Architecture,
    source: &Source,
    native: bool,
) -> Status {
    if native || runs_natively(architecture) {
        return Status { state: State::Native, ..found };
    }
    if let Some(entry) = disabled {
        found.problems.push(format!("{} is switched off", entry.name));
        return Status { state: State::Disabled, ..found };
    }
    match source.emulator(architecture).and_then(|emulator| Ok((emulator.check()?, emulator))) {
        Ok((version, emulator)) => {
            found.problems.push("no entry takes its programs".to_owned());
            let (version, interpreter) = (Some(version.to_string()), Some(emulator.path));
            Status { state: State::Missing, version, interpreter, ..found }
        }
        Err(error) => {
            found.problems.push(error.to_string());
            Status { state: State::Unavailable, ..found }
        }
    }
}

/// What the trials say.
fn judged(problems: &mut Vec<String>, proof: &Proof, entry: &Entry) -> State {
    match (&proof.alone, &proof.host) {
        (Err(error), Ok(_)) => {
            problems.push(match entry.is_fixed() {
                true => error.to_string(),
                false => "flag F is missing: its programs run here and in no container".to_owned(),
            });
            State::Loose
        }
        (Err(error), Err(_)) if !entry.interpreter.exists() => {
            problems.push(format!("{} is gone; {error}", entry.interpreter.display()));
            State::Broken
        }
        (Err(error), Err(_)) => {
            problems.push(error.to_string());
            State::Broken
        }
        (Ok(_), Err(error)) => {
            problems.push(format!("{error} outside of containers"));
            State::Broken
        }
        (Ok(_), Ok(_)) => match &proof.script {
            Ok(_) => State::Ok,
            Err(error) => {
                problems.push(format!("{error} as the interpreter of a script"));
                State::Broken
            }
        },
    }
}

/// A table for people.
pub(crate) fn table(all: &[Status]) -> String {
    let head = ["ARCHITECTURE", "STATE", "ENTRY", "INTERPRETER", "VERSION", "FLAGS", "ARGV0", "OWNER"];
    let dash = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    for one in all {
        rows.push(vec![
            one.architecture.clone(),
            one.state.to_string(),
            dash(one.entry.as_deref()),
            dash(one.interpreter.as_deref().and_then(Path::to_str)),
            dash(one.version.as_deref()),
            dash(Some(&one.flags)),
            dash(one.argv0.map(|kept| if kept { "kept" } else { "lost" })),
            dash(one.owner.as_deref()),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for one in all {
        for problem in &one.problems {
            text.push_str(&format!("{}: {problem}\n", one.architecture));
        }
    }
    text
}
