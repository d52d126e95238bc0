//! Sections of ELF programs, by name. Nothing in the file is believed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Sections that a program may have.
const MAX_SECTIONS: u64 = 4096;

/// Bytes of the sections' names.
const MAX_NAMES: u64 = 1 << 20;

/// How a program writes numbers.
struct Form {
    wide: bool,
    little: bool,
}

impl Form {
    fn number(&self, bytes: &[u8], at: usize, width: usize) -> Option<u64> {
        let part = bytes.get(at..at.checked_add(width)?)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(match self.little {
            true => part.iter().rev().fold(0, add),
            false => part.iter().fold(0, add),
        })
    }

    /// A number that is as wide as the program's addresses.
    fn address(&self, bytes: &[u8], narrow: usize, wide: usize) -> Option<u64> {
        match self.wide {
            true => self.number(bytes, wide, 8),
            false => self.number(bytes, narrow, 4),
        }
    }
}

fn read(file: &File, size: u64, offset: u64, length: u64, limit: u64) -> Option<Vec<u8>> {
    if length > limit || offset.checked_add(length)? > size {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// The content of a section of at most `limit` bytes; None if the file is no program or has no such section.
pub(crate) fn section(file: &File, size: u64, name: &str, limit: u64) -> Option<Vec<u8>> {
    let head = read(file, size, 0, size.min(64), 64)?;
    if head.get(..4)? != b"\x7fELF" {
        return None;
    }
    let form = Form { wide: *head.get(4)? == 2, little: *head.get(5)? == 1 };
    let table = form.address(&head, 0x20, 0x28)?;
    let (each, count, names) = match form.wide {
        true => (form.number(&head, 0x3a, 2)?, form.number(&head, 0x3c, 2)?, form.number(&head, 0x3e, 2)?),
        false => (form.number(&head, 0x2e, 2)?, form.number(&head, 0x30, 2)?, form.number(&head, 0x32, 2)?),
    };
    let least = if form.wide { 64 } else { 40 };
    if count > MAX_SECTIONS || each < least {
        return None;
    }
    let table = read(file, size, table, each * count, MAX_SECTIONS * u64::from(u16::MAX))?;
    let header = |at: u64| {
        let start = usize::try_from(at * each).ok()?;
        table.get(start..start.checked_add(usize::try_from(each).ok()?)?)
    };
    let content = |header: &[u8], limit: u64| {
        let offset = form.address(header, 0x10, 0x18)?;
        let length = form.address(header, 0x14, 0x20)?;
        read(file, size, offset, length, limit)
    };
    let names = content(header(names)?, MAX_NAMES)?;
    for at in 0..count {
        let header = header(at)?;
        let start = usize::try_from(form.number(header, 0, 4)?).ok()?;
        let found = names.get(start..).and_then(|rest| rest.split(|byte| *byte == 0).next());
        if found == Some(name.as_bytes()) {
            return content(header, limit);
        }
    }
    None
}
