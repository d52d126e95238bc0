//! The kernel's binfmt_misc entries.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use crosskit_platforms::Architecture;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Error, Magic, Result, file_error, magic};

/// Where binfmt_misc is mounted by everybody.
pub const DEFAULT_MOUNT: &str = "/proc/sys/fs/binfmt_misc";

/// An emulator as it is to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Name of the entry: `qemu-aarch64`.
    pub name: String,
    /// The emulator, as a path of the mount namespace that registers it.
    pub emulator: PathBuf,
    /// By what its programs are recognised.
    pub magic: Magic,
    /// Flags of binfmt_misc: F opens the emulator now, so that it works in any root; C runs set-uid programs with their
    /// owner's rights; P passes the program's own `argv[0]`.
    pub flags: String,
}

impl Registration {
    /// The entry `qemu-<QEMU name>` for this architecture, flags `CF`, and `P` if asked for.
    pub fn new(architecture: &Architecture, emulator: &Path, preserve_argv0: bool) -> Self {
        Self {
            name: format!("qemu-{}", architecture.qemu),
            emulator: emulator.to_owned(),
            magic: magic(architecture),
            flags: if preserve_argv0 { "CFP" } else { "CF" }.to_owned(),
        }
    }

    /// The line that the kernel wants in its `register` file (Documentation/admin-guide/binfmt-misc.rst).
    pub(crate) fn line(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let path = self.emulator.as_os_str().as_bytes();
        // The first character is the separator: any that the path does not have.
        let separator = [b':', b'|', 0x01].into_iter().find(|byte| !path.contains(byte)).unwrap_or(b':');
        let fields: [&[u8]; 7] = [
            self.name.as_bytes(),
            b"M",
            b"0",
            &Magic::escaped(&self.magic.bytes).into_bytes(),
            &Magic::escaped(&self.magic.mask).into_bytes(),
            path,
            self.flags.as_bytes(),
        ];
        let mut line = Vec::with_capacity(256);
        for field in fields {
            line.push(separator);
            line.extend_from_slice(field);
        }
        line
    }
}

/// An entry as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether the kernel uses it.
    pub enabled: bool,
    /// The program it starts.
    pub interpreter: PathBuf,
    /// Its flags: `OCF`.
    pub flags: String,
}

/// A mounted binfmt_misc.
#[derive(Clone, Debug)]
pub struct Binfmt {
    dir: PathBuf,
}

impl Binfmt {
    /// The instance that is mounted at this folder.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Whether it is really mounted there.
    pub fn is_mounted(&self) -> bool {
        self.dir.join("status").exists()
    }

    /// Mounts it there unless it is, until the returned value is dropped.
    pub fn mount(&self) -> Result<Option<TemporaryMount>> {
        if self.is_mounted() {
            return Ok(None);
        }
        mount(Some("binfmt_misc"), &self.dir, Some("binfmt_misc"), MsFlags::empty(), None::<&str>)
            .map_err(|errno| file_error("cannot mount binfmt_misc filesystem at", &self.dir)(errno.into()))?;
        Ok(Some(TemporaryMount(self.dir.clone())))
    }

    /// All entries, by name.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir).map_err(file_error("listing", &self.dir))? {
            let file = file.map_err(file_error("listing", &self.dir))?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name == "register" || name == "status" {
                continue;
            }
            match fs::read_to_string(file.path()) {
                Ok(text) => entries.push(parse_entry(name, &text)),
                // Somebody unregistered it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(file_error("reading", &file.path())(error)),
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The entry of this name.
    pub fn entry(&self, name: &str) -> Result<Option<Entry>> {
        Ok(self.entries()?.into_iter().find(|entry| entry.name == name))
    }

    /// Registers an emulator.
    pub fn register(&self, wanted: &Registration) -> Result<()> {
        let register = self.dir.join("register");
        let mut file = fs::OpenOptions::new().write(true).open(&register).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                Error::NotMounted { path: register.clone() }
            } else {
                file_error("opening", &register)(error)
            }
        })?;
        match file.write(&wanted.line()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyRegistered { name: wanted.name.clone() })
            }
            Err(source) => Err(Error::Register {
                name: wanted.name.clone(),
                emulator: wanted.emulator.clone(),
                register,
                source,
            }),
        }
    }

    /// Removes an entry.
    pub fn unregister(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        // The kernel takes "-1" as: remove.
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"-1"))
            .map_err(file_error("unregistering", &path))
    }
}

/// Reads what the kernel prints for an entry.
pub(crate) fn parse_entry(name: String, text: &str) -> Entry {
    let mut entry = Entry { name, ..Entry::default() };
    for line in text.lines() {
        match line.split_once(' ') {
            None => entry.enabled |= line == "enabled",
            Some(("interpreter", path)) => entry.interpreter = path.into(),
            Some(("flags:", flags)) => entry.flags = flags.trim().to_owned(),
            Some(_) => {}
        }
    }
    entry
}

/// A mount that goes away with this value, and since Linux 6.7 all entries with it if it was the only one.
#[derive(Debug)]
pub struct TemporaryMount(PathBuf);

impl TemporaryMount {
    /// Leaves it mounted.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for TemporaryMount {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.0, MntFlags::MNT_DETACH) {
            tracing::warn!(path = %self.0.display(), %errno, "unmounting binfmt_misc failed");
        }
    }
}
