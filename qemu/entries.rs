//! The kernel's binfmt_misc entries.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use crosskit_platforms::Architecture;

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
    pub fn line(&self) -> Vec<u8> {
        let Magic { bytes, mask } = &self.magic;
        line(&self.name, 0, bytes, mask, &self.emulator, &self.flags)
    }
}

fn line(name: &str, offset: usize, magic: &[u8], mask: &[u8], emulator: &Path, flags: &str) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let path = emulator.as_os_str().as_bytes();
    // The first character is the separator: any that the path does not have.
    let separator = [b':', b'|', 0x01].into_iter().find(|byte| !path.contains(byte)).unwrap_or(b':');
    let (offset, magic, mask) = (offset.to_string(), Magic::escaped(magic), Magic::escaped(mask));
    let fields: [&[u8]; 7] =
        [name.as_bytes(), b"M", offset.as_bytes(), magic.as_bytes(), mask.as_bytes(), path, flags.as_bytes()];
    let mut line = Vec::with_capacity(256);
    for field in fields {
        line.push(separator);
        line.extend_from_slice(field);
    }
    line
}

/// An entry as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether the kernel uses it.
    pub enabled: bool,
    /// The program it starts.
    pub interpreter: PathBuf,
    /// Its flags: `OCF`.
    pub flags: String,
    /// Where in a file its magic is.
    pub offset: usize,
    /// The bytes there that it takes programs by; none where it goes by the end of their names.
    pub magic: Vec<u8>,
    /// The bits of them that count; none for all.
    pub mask: Vec<u8>,
}

impl Entry {
    /// Whether it takes files with this beginning.
    pub fn takes(&self, head: &[u8]) -> bool {
        let Some(found) = head.get(self.offset..self.offset + self.magic.len()) else { return false };
        let counts = |at: usize| self.mask.get(at).copied().unwrap_or(0xff);
        let same = |(at, byte): (usize, &u8)| (byte ^ self.magic[at]) & counts(at) == 0;
        !self.magic.is_empty() && found.iter().enumerate().all(same)
    }

    /// Whether the kernel holds the emulator open, so that it works whatever the root.
    pub fn is_fixed(&self) -> bool {
        self.flags.contains('F')
    }

    /// The line that registers it again.
    pub fn line(&self) -> Vec<u8> {
        let Entry { name, interpreter, flags, offset, magic, mask, .. } = self;
        line(name, *offset, magic, mask, interpreter, flags)
    }
}

/// A mounted binfmt_misc.
#[derive(Clone, Debug)]
pub struct Binfmt {
    pub(crate) dir: PathBuf,
}

impl Binfmt {
    /// The instance that is mounted at this folder.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
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
        self.register_line(&wanted.name, &wanted.emulator, &wanted.line())
    }

    /// Registers an entry as it was.
    pub fn register_again(&self, entry: &Entry) -> Result<()> {
        self.register_line(&entry.name, &entry.interpreter, &entry.line())?;
        if entry.enabled { Ok(()) } else { self.enable(&entry.name, false) }
    }

    pub(crate) fn register_line(&self, name: &str, emulator: &Path, line: &[u8]) -> Result<()> {
        let register = self.dir.join("register");
        let mut file = fs::OpenOptions::new().write(true).open(&register).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                Error::NotMounted { path: register.clone() }
            } else {
                Error::Change { doing: "opening", path: register.clone(), source: error }
            }
        })?;
        match file.write(line) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyRegistered { name: name.to_owned() })
            }
            Err(source) => Err(Error::Register {
                name: name.to_owned(),
                emulator: emulator.to_owned(),
                register,
                source,
            }),
        }
    }

    /// Removes an entry.
    pub fn unregister(&self, name: &str) -> Result<()> {
        // The kernel takes "-1" as: remove.
        self.tell("unregistering", name, b"-1")
    }

    /// Lets the kernel use an entry, or not.
    pub fn enable(&self, name: &str, on: bool) -> Result<()> {
        self.tell("enabling", name, if on { b"1" } else { b"0" })
    }

    fn tell(&self, doing: &'static str, name: &str, what: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let opened = fs::OpenOptions::new().write(true).open(&path);
        opened.and_then(|mut file| file.write_all(what)).map_err(|source| Error::Change {
            doing,
            path,
            source,
        })
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
            Some(("offset", offset)) => entry.offset = offset.trim().parse().unwrap_or_default(),
            Some(("magic", bytes)) => entry.magic = from_hex(bytes),
            Some(("mask", bytes)) => entry.mask = from_hex(bytes),
            Some(_) => {}
        }
    }
    entry
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| Some(c.to_digit(16)? as u8)).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
