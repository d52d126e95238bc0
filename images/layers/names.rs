//! Paths of tar entries, taken apart.

use super::errors::LayerError;

/// Prefix of a marker that removes what the rest of its name says (OCI image-spec 1.1, layer).
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// Marker that hides what lower layers have in its folder.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of AUFS's own files, which are no content.
pub(super) const WHITEOUT_META: &[u8] = b".wh..wh.";

/// A path below the root as parts without `.`, `..` and empty ones, joined by `/`; empty for the root itself.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, LayerError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop().ok_or_else(|| LayerError::Escapes { entry: shown(name) })?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// The folder and the last part of a clean path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// A path with one more part.
pub(super) fn join(dir: &[u8], base: &[u8]) -> Vec<u8> {
    if dir.is_empty() { base.to_vec() } else { [dir, b"/", base].concat() }
}

/// For messages.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
