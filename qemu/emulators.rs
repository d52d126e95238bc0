//! Emulators on this machine.

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crosskit_platforms::Architecture;

use crate::probe::{end_of, killed};
use crate::{Error, Result, file_error};

/// A QEMU release: major, minor, micro.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Architectures that releases are known to be bad for: the first good one, and what those before it do.
const GOOD_SINCE: [(&str, Version, &str); 1] =
    [("loong64", Version(9, 0, 0), "kills loong64 programs of today's toolchains by illegal instructions")];
/// First QEMU that understands the kernel's mark for a preserved `argv[0]` (AT_FLAGS, Linux 5.12).
const ARGV0_SINCE: Version = Version(6, 0, 0);

/// A user-mode emulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    /// OCI name of the architecture whose programs it runs.
    pub architecture: String,
    /// Where it is.
    pub path: PathBuf,
}

impl Emulator {
    /// Checks what can be known without registering it: it is a static program and of a release that works for its
    /// architecture. Runs it once with `--version`.
    pub fn check(&self) -> Result<Version> {
        let unusable = |reason: String| Error::BadEmulator { path: self.path.clone(), reason };
        if !is_static(&self.path)? {
            let reason = "it needs a dynamic linker, which the containers it has to work in do not have; install a \
                          static one (Debian: qemu-user-static)";
            return Err(unusable(reason.to_owned()));
        }
        let version = self.version()?;
        let bad = GOOD_SINCE.iter().find(|(name, since, _)| self.architecture == *name && version < *since);
        match bad {
            Some((_, since, what)) => {
                Err(unusable(format!("QEMU {version} {what}; {since} or newer is needed")))
            }
            None => Ok(version),
        }
    }

    /// What it says with `--version`.
    pub fn version(&self) -> Result<Version> {
        let unusable = |reason: String| Error::BadEmulator { path: self.path.clone(), reason };
        let mut command = Command::new(&self.path);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child =
            command.spawn().map_err(|error| unusable(format!("it cannot be executed: {error}")))?;
        let from_child = child.stdout.take();
        let status = end_of(child).map_err(|error| unusable(format!("asked for its version, {error}")))?;
        if status.code().is_none() {
            return Err(unusable(format!(
                "it was {} when it was asked for its version; install another release (Debian: qemu-user-static)",
                killed(status)
            )));
        }
        // Few words, which the pipe holds.
        let mut said = Vec::new();
        if let Some(from_child) = from_child {
            from_child.take(4096).read_to_end(&mut said).map_err(file_error("reading from", &self.path))?;
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        parse_version(&said)
            .ok_or_else(|| unusable(format!("--version said {:?}", said.lines().next().unwrap_or_default())))
    }

    /// Whether programs can be given their own `argv[0]` (flag P of binfmt_misc) under this release on this kernel.
    /// Without it a shell that executes itself under another name, as busybox does, does not work.
    pub(crate) fn keeps_argv0(version: Version) -> bool {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        version >= ARGV0_SINCE && leading_version(&kernel).is_some_and(|kernel| kernel >= KERNEL_ARGV0_SINCE)
    }
}

/// First kernel that marks it.
const KERNEL_ARGV0_SINCE: Version = Version(5, 12, 0);

/// The release in `qemu-aarch64 version 7.2.9 (Debian …)`.
pub(crate) fn parse_version(said: &str) -> Option<Version> {
    let (_, rest) = said.split_once("version ")?;
    leading_version(rest)
}

/// The numbers that a text begins with.
fn leading_version(text: &str) -> Option<Version> {
    let number = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    Some(Version(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// Where emulators are looked for, and what was found there.
#[derive(Clone, Debug, Default)]
pub struct Emulators {
    folders: Vec<PathBuf>,
    found: BTreeMap<String, Emulator>,
}

impl Emulators {
    /// Looks for emulators in the folders given, then beside this program, in `/usr/bin`, and along PATH. In each
    /// folder `qemu-ARCH`, `qemu-ARCH-static` and `buildkit-qemu-ARCH` are tried, ARCH being QEMU's name.
    ///
    /// Only looks for files; [`Emulator::check`] says whether one is any good.
    pub fn find(given: &[PathBuf]) -> Self {
        let mut folders = given.to_vec();
        folders.extend(std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)));
        folders.push("/usr/bin".into());
        if let Some(path) = std::env::var_os("PATH") {
            folders.extend(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
        }
        Self::in_folders(folders)
    }

    /// Looks in these folders only, the first that has one wins.
    pub fn in_folders(folders: Vec<PathBuf>) -> Self {
        let mut seen = std::collections::HashSet::new();
        let folders: Vec<PathBuf> =
            folders.into_iter().filter(|folder| seen.insert(folder.clone())).collect();
        let mut found = BTreeMap::new();
        for architecture in Architecture::all() {
            let path = folders
                .iter()
                .flat_map(|folder| names(architecture).map(|name| folder.join(name)))
                .find(|path| is_executable(path));
            if let Some(path) = path {
                let emulator = Emulator { architecture: architecture.name.clone(), path };
                found.insert(architecture.name.clone(), emulator);
            }
        }
        Self { folders, found }
    }

    /// The emulator for an architecture by its OCI name.
    pub fn get(&self, architecture: &Architecture) -> Result<&Emulator> {
        self.found.get(&architecture.name).ok_or_else(|| Error::NoEmulator {
            architecture: architecture.name.clone(),
            names: names(architecture).join(", "),
            folders: self.folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "),
        })
    }

    /// All that were found, by OCI name.
    pub fn iter(&self) -> impl Iterator<Item = &Emulator> {
        self.found.values()
    }
}

/// File names under which an emulator may be installed, in order.
fn names(architecture: &Architecture) -> [String; 3] {
    let qemu = &architecture.qemu;
    [format!("qemu-{qemu}"), format!("qemu-{qemu}-static"), format!("buildkit-qemu-{qemu}")]
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// Whether an ELF program names no dynamic linker (no `PT_INTERP` among its program headers). Static PIE counts.
pub(crate) fn is_static(path: &Path) -> Result<bool> {
    /// `p_type` of the dynamic linker's name.
    const PT_INTERP: u64 = 3;
    let file = std::fs::File::open(path).map_err(file_error("opening", path))?;
    let mut head = Vec::new();
    file.take(4096).read_to_end(&mut head).map_err(file_error("reading", path))?;
    let not_elf =
        || Error::BadEmulator { path: path.to_owned(), reason: "it is not an ELF program".to_owned() };
    if head.get(..4) != Some(b"\x7fELF") {
        return Err(not_elf());
    }
    let (wide, big) = (head.get(4) == Some(&2), head.get(5) == Some(&2));
    let number = |offset: usize, size: usize| -> Option<u64> {
        let bytes = head.get(offset..offset.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if big { bytes.iter().fold(0, fold) } else { bytes.iter().rev().fold(0, fold) })
    };
    // e_phoff, e_phentsize, e_phnum in each class.
    let (table, size, count) = if wide { ((32, 8), 54, 56) } else { ((28, 4), 42, 44) };
    let read = || Some((number(table.0, table.1)?, number(size, 2)?, number(count, 2)?));
    let (table, size, count) = read().ok_or_else(not_elf)?;
    for index in 0..count {
        let offset = usize::try_from(table + index * size).map_err(|_| not_elf())?;
        // Program headers of real programs follow the file header, well inside the first page.
        match number(offset, 4) {
            Some(PT_INTERP) => return Ok(false),
            Some(_) => {}
            None => return Err(not_elf()),
        }
    }
    Ok(true)
}
