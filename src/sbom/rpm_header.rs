//! Headers of rpm packages, as its databases keep them: a list of tags, and their values behind it. Numbers are
//! big-endian. Nothing in it is believed.

/// Bytes of an entry of the list: tag, type, offset and count.
const ENTRY: usize = 16;

/// Types of values.
const INT16: u32 = 3;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRINGS: u32 = 8;
const TRANSLATED: u32 = 9;

/// A header.
pub(crate) struct Header<'a> {
    entries: &'a [u8],
    store: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(part.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

impl<'a> Header<'a> {
    /// None for bytes that are none.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let entries = usize::try_from(word(bytes, 0)?).ok()?.checked_mul(ENTRY)?;
        let length = usize::try_from(word(bytes, 4)?).ok()?;
        let start = entries.checked_add(8)?;
        Some(Header { entries: bytes.get(8..start)?, store: bytes.get(start..start.checked_add(length)?)? })
    }

    /// Type, count and the bytes from where the values begin.
    fn find(&self, tag: u32) -> Option<(u32, usize, &'a [u8])> {
        let entry = self.entries.chunks_exact(ENTRY).find(|entry| word(entry, 0) == Some(tag))?;
        let offset = usize::try_from(word(entry, 8)?).ok()?;
        let count = usize::try_from(word(entry, 12)?).ok()?;
        Some((word(entry, 4)?, count, self.store.get(offset..)?))
    }

    /// The texts of a tag.
    pub(crate) fn texts(&self, tag: u32) -> Vec<String> {
        let Some((STRING | STRINGS | TRANSLATED, count, bytes)) = self.find(tag) else { return Vec::new() };
        let texts = bytes.split(|byte| *byte == 0).take(count);
        texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// The first text of a tag; empty if there is none.
    pub(crate) fn text(&self, tag: u32) -> String {
        self.texts(tag).into_iter().next().unwrap_or_default()
    }

    /// The numbers of a tag.
    pub(crate) fn numbers(&self, tag: u32) -> Vec<u32> {
        let Some((kind, count, bytes)) = self.find(tag) else { return Vec::new() };
        let width = match kind {
            INT16 => 2,
            INT32 => 4,
            _ => return Vec::new(),
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        bytes.chunks_exact(width).take(count).map(number).collect()
    }
}
