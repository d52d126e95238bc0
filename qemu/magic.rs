//! The bytes by which the kernel recognises a program of an architecture.

use crosskit_platforms::{Architecture, Endian};

/// What binfmt_misc compares with the first bytes of a file: a file matches where `bytes == file & mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Magic {
    /// Values wanted: the ELF header from `e_ident` up to `e_machine`.
    pub bytes: [u8; 20],
    /// Bits that count.
    pub mask: [u8; 20],
}

impl Magic {
    /// Both as binfmt_misc wants them written: `\x7f\x45…`.
    pub(crate) fn escaped(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
    }
}

/// Offset of `e_ident[EI_OSABI]`: GNU programs set it or not.
const OSABI: usize = 7;
/// Offset of `e_ident[EI_ABIVERSION]`: MIPS and LoongArch toolchains have put several values here.
const ABI_VERSION: usize = 8;
/// Offset of `e_type`.
const TYPE: usize = 16;
/// Offset of `e_machine`.
const MACHINE: usize = 18;

/// The magic of an architecture's ELF programs: class, byte order, version, machine, and a type of either `ET_EXEC` (2)
/// or `ET_DYN` (3), which differ in one bit.
pub fn magic(architecture: &Architecture) -> Magic {
    let big = architecture.endian == Endian::Big;
    let half = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut bytes = [0; 20];
    bytes[..7].copy_from_slice(&[
        0x7f,
        b'E',
        b'L',
        b'F',
        if architecture.bits == 64 { 2 } else { 1 },
        if big { 2 } else { 1 },
        1,
    ]);
    bytes[TYPE..MACHINE].copy_from_slice(&half(2));
    bytes[MACHINE..].copy_from_slice(&half(architecture.machine));
    let mut mask = [0xff; 20];
    mask[OSABI] = 0;
    mask[ABI_VERSION] = 0;
    mask[TYPE..MACHINE].copy_from_slice(&half(0xfffe));
    Magic { bytes, mask }
}
