//! The table of architectures, read from `platforms.toml`.

use std::sync::LazyLock;

use serde::Deserialize;

/// Byte order of an architecture's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// What is known about one processor architecture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// OCI name, as Go's GOARCH: `arm64`.
    pub name: String,
    /// Other names that specifiers use; `armhf/v7` stands for variant `v7`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Variant that an empty one stands for: `v7` for `arm`.
    #[serde(default)]
    pub default: String,
    /// Variants that exist, oldest first.
    #[serde(default)]
    pub variants: Vec<String>,
    /// QEMU's name: user-mode emulators are called `qemu-<this>`.
    pub qemu: String,
    /// `e_machine` of ELF programs.
    pub machine: u16,
    /// ELF class: 32 or 64 bits.
    pub bits: u8,
    /// ELF data encoding.
    pub endian: Endian,
    /// OCI name of the 32-bit architecture that the same processors usually run too.
    #[serde(default)]
    pub sibling: Option<String>,
    /// What `uname -m` prints on such machines.
    pub uname: Vec<String>,
    /// Rust's `target_arch`; empty where Rust has none.
    pub rust: String,
    /// Whether no builder lists it on its own account.
    #[serde(default)]
    pub beyond: bool,
}

#[derive(Deserialize)]
struct Table {
    architecture: Vec<Architecture>,
}

static TABLE: LazyLock<Vec<Architecture>> = LazyLock::new(|| {
    toml::from_str::<Table>(include_str!("platforms.toml"))
        .expect("platforms.toml is part of the program and read by its tests")
        .architecture
});

impl Architecture {
    /// Every architecture of the table, in the order in which lists of platforms name them.
    pub fn all() -> &'static [Architecture] {
        &TABLE
    }

    /// The architecture of this OCI name.
    pub fn by_name(name: &str) -> Option<&'static Architecture> {
        TABLE.iter().find(|known| known.name == name)
    }

    /// The architecture of this QEMU name.
    pub fn by_qemu_name(name: &str) -> Option<&'static Architecture> {
        TABLE.iter().find(|known| known.qemu == name)
    }

    /// The architecture that an alias stands for, and the variant if it stands for one.
    pub(crate) fn by_alias(alias: &str) -> Option<(&'static Architecture, &'static str)> {
        TABLE.iter().find_map(|known| {
            known.aliases.iter().find_map(|candidate| {
                let (name, variant) = candidate.split_once('/').unwrap_or((candidate, ""));
                (name == alias).then_some((known, variant))
            })
        })
    }

    /// The architecture that this program was compiled for, if the table has it.
    pub fn native() -> Option<&'static Architecture> {
        let endian = if cfg!(target_endian = "big") { Endian::Big } else { Endian::Little };
        TABLE.iter().find(|known| known.rust == std::env::consts::ARCH && known.endian == endian)
    }

    /// Whether a processor of this architecture runs programs of `other` itself, as far as the table knows: a kernel
    /// may still be built without it, so try before relying on it.
    pub fn may_run_natively(&self, other: &Architecture) -> bool {
        self.name == other.name || self.sibling.as_deref() == Some(other.name.as_str())
    }
}
