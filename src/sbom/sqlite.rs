//! Tables of an SQLite file, read page by page (<https://www.sqlite.org/fileformat2.html>): as much of the format as the
//! database of rpm needs, and no more. Nothing in the file is believed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

const MAGIC: &[u8] = b"SQLite format 3\0";

/// Bytes of the file's head, before the first page's own.
const HEAD: usize = 100;

/// Kinds of pages: inner and outer ones of tables.
const INNER: u8 = 0x05;
const OUTER: u8 = 0x0d;

/// Inner pages below inner pages; a table of a billion rows has six.
const MAX_DEPTH: usize = 20;

/// Bytes of one row. A package with very many files has some megabytes.
const MAX_ROW: usize = 256 << 20;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A whole number.
    Number(i64),
    /// Text or bytes.
    Bytes(Vec<u8>),
    /// Nothing, or something that nobody needs here.
    Other,
}

/// An SQLite file.
pub(crate) struct Sqlite<'f> {
    file: &'f File,
    page: usize,
    /// Bytes of a page that are the format's own.
    usable: usize,
    pages: u32,
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(width)?)?;
    Some(part.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// A number of one to nine bytes, and how many they are.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut sum = 0u64;
    for step in 0..9 {
        let byte = *bytes.get(at.checked_add(step)?)?;
        if step == 8 {
            return Some((sum << 8 | u64::from(byte), 9));
        }
        sum = sum << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((sum, step + 1));
        }
    }
    None
}

impl<'f> Sqlite<'f> {
    /// None for a file that is none.
    pub(crate) fn open(file: &'f File, size: u64) -> Option<Self> {
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        if head.get(..MAGIC.len())? != MAGIC {
            return None;
        }
        let page = match number(&head, 16, 2)? {
            1 => 65536,
            small => usize::try_from(small).ok()?,
        };
        let usable = page.checked_sub(usize::from(*head.get(20)?))?;
        if !page.is_power_of_two() || usable < 480 {
            return None;
        }
        let pages = u32::try_from(size / page as u64).ok()?;
        Some(Sqlite { file, page, usable, pages })
    }

    fn page(&self, number: u32) -> Option<Vec<u8>> {
        if number == 0 || number > self.pages {
            return None;
        }
        let mut bytes = vec![0; self.page];
        self.file.read_exact_at(&mut bytes, u64::from(number - 1) * self.page as u64).ok()?;
        Some(bytes)
    }

    /// Calls `row` for each row of a table; None if the file is broken, after the rows before that.
    pub(crate) fn rows(&self, table: &str, mut row: impl FnMut(Vec<Value>)) -> Option<()> {
        let mut first = None;
        self.scan(1, &mut |values| {
            let text = |at: usize| match values.get(at) {
                Some(Value::Bytes(bytes)) => bytes.as_slice(),
                _ => b"",
            };
            if text(0) == b"table" && text(1) == table.as_bytes() {
                first = values.get(3).cloned();
            }
        })?;
        let Some(Value::Number(first)) = first else { return None };
        self.scan(u32::try_from(first).ok()?, &mut row)
    }

    fn scan(&self, first: u32, row: &mut dyn FnMut(Vec<Value>)) -> Option<()> {
        // No table has more pages than the file: one that does goes in circles.
        let mut left = self.pages;
        let mut ahead = vec![(first, 0usize)];
        while let Some((at, depth)) = ahead.pop() {
            left = left.checked_sub(1)?;
            let page = self.page(at)?;
            let head = if at == 1 { HEAD } else { 0 };
            let kind = *page.get(head)?;
            let cells = usize::try_from(number(&page, head + 3, 2)?).ok()?;
            let start = match kind {
                INNER if depth < MAX_DEPTH => head + 12,
                OUTER => head + 8,
                _ => return None,
            };
            let cell = |at: usize| usize::try_from(number(&page, start + 2 * at, 2)?).ok();
            if kind == OUTER {
                for at in 0..cells {
                    row(values(&self.row(&page, cell(at)?)?)?);
                }
                continue;
            }
            // The last first, as the next is taken from the end.
            let next = |number: u64| u32::try_from(number).ok().map(|page| (page, depth + 1));
            ahead.push(next(number(&page, head + 8, 4)?)?);
            for at in (0..cells).rev() {
                ahead.push(next(number(&page, cell(at)?, 4)?)?);
            }
        }
        Some(())
    }

    /// The bytes of a row whose cell is at this place, with those that have found no room in the page.
    fn row(&self, page: &[u8], at: usize) -> Option<Vec<u8>> {
        let (length, first) = varint(page, at)?;
        let (_, second) = varint(page, at + first)?;
        let (start, length) = (at + first + second, usize::try_from(length).ok()?);
        if length > MAX_ROW || length as u64 > u64::from(self.pages) * self.page as u64 {
            return None;
        }
        let most = self.usable - 35;
        if length <= most {
            return Some(page.get(start..start.checked_add(length)?)?.to_vec());
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (self.usable - 4);
        let here = if fitting <= most { fitting } else { least };
        let mut bytes = page.get(start..start + here)?.to_vec();
        let mut next = number(page, start + here, 4)?;
        while bytes.len() < length {
            let page = self.page(u32::try_from(next).ok()?)?;
            next = number(&page, 0, 4)?;
            let more = (length - bytes.len()).min(self.usable - 4);
            bytes.extend_from_slice(page.get(4..4 + more)?);
        }
        Some(bytes)
    }
}

/// The values of a row.
fn values(row: &[u8]) -> Option<Vec<Value>> {
    let (head, mut at) = varint(row, 0)?;
    let head = usize::try_from(head).ok()?;
    let mut content = head;
    let mut found = Vec::new();
    while at < head {
        let (kind, length) = varint(row, at)?;
        at += length;
        let (value, length) = match kind {
            1..=6 => {
                let width = [1, 2, 3, 4, 6, 8][usize::try_from(kind - 1).ok()?];
                let unsigned = number(row, content, width)?;
                let shift = 64 - 8 * u32::try_from(width).ok()?;
                (Value::Number((unsigned << shift).cast_signed() >> shift), width)
            }
            7 => (Value::Other, 8),
            8 | 9 => (Value::Number(i64::try_from(kind - 8).ok()?), 0),
            12.. => {
                let length = usize::try_from((kind - 12) / 2).ok()?;
                (Value::Bytes(row.get(content..content.checked_add(length)?)?.to_vec()), length)
            }
            _ => (Value::Other, 0),
        };
        content = content.checked_add(length)?;
        found.push(value);
    }
    Some(found)
}
