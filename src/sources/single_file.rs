//! Snapshots that hold one file.

use crate::{Attrs, Shared, SourceError, number};
use bytes::Bytes;
use crosskit_images::{Digest, Digester};
use crosskit_snapshots::{About, Ref};
use futures::{Stream, StreamExt};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::io::Write;
use tokio::sync::mpsc;

/// Pieces that wait to be written.
const WAITING: usize = 16;

/// Permissions where none are asked for.
const USUAL_PERMISSIONS: u32 = 0o600;

/// The name where none is known.
const USUAL_NAME: &str = "download";

/// What a file is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form {
    /// Permissions as asked for; 0 for the usual ones.
    pub(crate) permissions: i64,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
}

impl Form {
    pub(crate) fn new(attrs: &Attrs) -> Result<Self, SourceError> {
        Ok(Self {
            permissions: number(attrs, "http.perm")?,
            uid: number(attrs, "http.uid")?,
            gid: number(attrs, "http.gid")?,
        })
    }
}

/// The last part of a path, if it can be the name of a file.
pub(crate) fn safe_name(text: &str) -> String {
    let text = text.trim();
    let name = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let usable = !matches!(name, "" | "." | "..") && !name.chars().any(char::is_control);
    if usable { name.to_string() } else { USUAL_NAME.to_string() }
}

/// Makes a snapshot with a file `name` of these pieces, last modified at `modified` (seconds since
/// 1970). Returns it and the digest of the file.
pub(crate) async fn write(
    shared: &Shared,
    about: About,
    name: &str,
    form: &Form,
    modified: i64,
    mut pieces: impl Stream<Item = Result<Bytes, SourceError>> + Unpin,
) -> Result<(Ref, Digest), SourceError> {
    let snapshot = shared.parts.snapshots.new_mutable(None, about)?;
    let mounted = snapshot.mount().await?;
    let path = mounted.path().join(name);
    let form = form.clone();
    let (sender, mut waiting) = mpsc::channel::<Bytes>(WAITING);
    let writing = tokio::task::spawn_blocking(move || {
        let doing = format!("write {}", path.display());
        let mode = match form.permissions {
            0 => USUAL_PERMISSIONS,
            asked => asked as u32 & 0o777,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(mode));
        let mut file = std::fs::File::from(file.map_err(SourceError::io(doing.clone()))?);
        let mut digest = Digester::new();
        while let Some(piece) = waiting.blocking_recv() {
            digest.update(&piece);
            file.write_all(&piece).map_err(SourceError::io(doing.clone()))?;
        }
        let time = Timespec { tv_sec: modified, tv_nsec: 0 };
        let finish = || {
            if (form.uid, form.gid) != (0, 0) {
                let (uid, gid) = (Uid::from_raw(form.uid as u32), Gid::from_raw(form.gid as u32));
                rustix::fs::chownat(CWD, &path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })
        };
        finish().map_err(SourceError::io(doing))?;
        Ok::<_, SourceError>(digest.finish())
    });
    let mut failed = None;
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => {
                if sender.send(piece).await.is_err() {
                    break;
                }
            }
            Err(err) => {
                failed = Some(err);
                break;
            }
        }
    }
    drop(sender);
    let written = writing.await.map_err(SourceError::thread)?;
    if let Some(err) = failed {
        return Err(err);
    }
    let digest = written?;
    drop(mounted);
    Ok((snapshot.commit().await?, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_elsewhere_stay_in_the_folder() {
        for (text, name) in [
            ("foo.txt", "foo.txt"),
            ("資料.txt", "資料.txt"),
            ("  spaces inside.txt ", "spaces inside.txt"),
            ("a/b/c.txt", "c.txt"),
            ("a/b/", "b"),
            ("", "download"),
            (".", "download"),
            ("..", "download"),
            ("../", "download"),
            ("a\0b", "download"),
            ("a\nb", "download"),
            ("..\\", "..\\"),
        ] {
            assert_eq!(safe_name(text), name, "{text:?}");
        }
    }
}
