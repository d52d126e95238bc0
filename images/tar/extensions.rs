//! What comes before a header to say what it cannot: PAX records, and GNU's and PAX's sparse maps.

use std::collections::BTreeMap;
use std::io;

use super::header::{Header, Timestamp};

/// Records by key. An empty value takes a record back.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("invalid tar: {reason}"))
}

/// Reads `LENGTH key=value\n` until the end.
pub(super) fn parse_records(mut body: &[u8], records: &mut Records) -> io::Result<()> {
    let mut sparse = Vec::new();
    while !body.is_empty() && body[0] != 0 {
        let space =
            body.iter().take(20).position(|b| *b == b' ').ok_or_else(|| bad("PAX record without length"))?;
        let length: usize = text_number(&body[..space])
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| bad("PAX record length"))?;
        if length <= space + 1 || length > body.len() || body[length - 1] != b'\n' {
            return Err(bad("PAX record does not end where it says"));
        }
        let (key, value) = {
            let text = &body[space + 1..length - 1];
            let at = text.iter().position(|b| *b == b'=').ok_or_else(|| bad("PAX record without value"))?;
            (&text[..at], &text[at + 1..])
        };
        if key.is_empty() {
            return Err(bad("PAX record without key"));
        }
        // GNU's first sparse format repeats two keys once for every piece.
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            sparse.push(String::from_utf8_lossy(value).into_owned());
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
        body = &body[length..];
    }
    if !sparse.is_empty() {
        records.insert(b"GNU.sparse.map".to_vec(), sparse.join(",").into_bytes());
    }
    Ok(())
}

/// Puts records into the fields that they stand for, the rest into `header.records`.
/// Returns the size of the data in the archive, where a record says it.
pub(super) fn apply_records(header: &mut Header, records: &Records) -> io::Result<Option<u64>> {
    let mut size = None;
    for (key, value) in records {
        if value.is_empty() && !key.starts_with(super::XATTR_PREFIX.as_bytes()) {
            continue;
        }
        let number = || text_number(value).ok_or_else(|| bad("number in a PAX record"));
        let id = || number().and_then(|n| u32::try_from(n).map_err(|_| bad("owner in a PAX record")));
        match key.as_slice() {
            b"path" => header.name = no_nul(value)?,
            b"linkpath" => header.link = no_nul(value)?,
            b"uname" => header.user = no_nul(value)?,
            b"gname" => header.group = no_nul(value)?,
            b"uid" => header.uid = id()?,
            b"gid" => header.gid = id()?,
            b"size" => size = Some(number()?),
            b"mtime" => header.mtime = parse_time(value)?,
            b"atime" | b"ctime" | b"hdrcharset" | b"comment" => {}
            key if key.starts_with(b"GNU.sparse.") => {}
            _ => {
                header.records.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(size)
}

fn no_nul(value: &[u8]) -> io::Result<Vec<u8>> {
    if value.contains(&0) { Err(bad("NUL in a PAX record")) } else { Ok(value.to_vec()) }
}

/// A decimal number.
pub(super) fn text_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse_time(text: &[u8]) -> io::Result<Timestamp> {
    let text = std::str::from_utf8(text).map_err(|_| bad("time in a PAX record"))?;
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad("time in a PAX record"))?;
    if !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("time in a PAX record"));
    }
    let nanos: u32 = format!("{decimals:0<9.9}").parse().map_err(|_| bad("time in a PAX record"))?;
    Ok(if whole.starts_with('-') && nanos > 0 {
        Timestamp { seconds: seconds.saturating_sub(1), nanos: 1_000_000_000 - nanos }
    } else {
        Timestamp { seconds, nanos }
    })
}

/// Pieces must be in order, must not overlap, and must hold as much as the archive holds.
pub(super) fn check_pieces(pieces: &[(u64, u64)], size: u64, stored: u64) -> io::Result<()> {
    let mut end = 0_u64;
    let mut held = 0_u64;
    for (offset, length) in pieces {
        if *offset < end {
            return Err(bad("pieces of a sparse file overlap"));
        }
        end = offset.checked_add(*length).ok_or_else(|| bad("sparse file too large"))?;
        held += length;
    }
    if end > size || held != stored {
        return Err(bad("pieces of a sparse file do not fit its size"));
    }
    Ok(())
}

/// `offset,length,offset,length…`.
pub(super) fn parse_map(text: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let numbers = text
        .split(|b| *b == b',')
        .filter(|part| !part.is_empty())
        .map(|part| text_number(part).ok_or_else(|| bad("sparse map")))
        .collect::<io::Result<Vec<_>>>()?;
    if numbers.len() % 2 != 0 {
        return Err(bad("sparse map"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}
