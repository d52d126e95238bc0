//! Applies a layer's tar to a folder.

use std::collections::HashSet;
use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, Timestamps, openat2};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::dirs::{Dirs, OpenDir};
use super::errors::LayerError;
use super::lower::LowerView;
use super::names::{clean, shown};
use super::stat::Meta;
use super::xattrs;
use crate::tar::{Header, Reader, ReaderLimits, Timestamp};

/// How removals appear in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyForm {
    /// The folder is one layer of an overlay: a removed file is a 0:0 character device, a folder that hides those
    /// below has `trusted.overlay.opaque=y`.
    #[default]
    Overlay,
    /// The same for overlays mounted with `userxattr`: `user.overlay.opaque=y`.
    OverlayUserXattr,
    /// The folder is the whole tree: what is removed is removed.
    Merged,
}

/// How much a layer may hold.
#[derive(Clone, Copy, Debug)]
pub struct LayerLimits {
    /// Most entries. The largest images in use have about a million.
    pub entries: u64,
    /// Most bytes of file content in all.
    pub bytes: u64,
    /// Limits of the tar's own headers.
    pub tar: ReaderLimits,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self { entries: 20_000_000, bytes: 1 << 42, tar: ReaderLimits::default() }
    }
}

/// How a layer is applied.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// How removals appear.
    pub form: ApplyForm,
    /// For the overlay forms the layers below, topmost first: folders that the tar only implies look as below, and
    /// hard links may point at files below.
    pub lowers: Vec<PathBuf>,
    /// How much a layer may hold.
    pub limits: LayerLimits,
    /// Gives the work up.
    pub cancel: Option<CancellationToken>,
}

/// What was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of file content.
    pub size: u64,
}

/// Applies the changes that a tar holds to the folder `root`.
///
/// Blocking: meant for a thread of its own. The tar is read up to its end mark; what follows is left to the caller.
pub fn apply_layer(
    root: impl AsFd,
    tar: impl BufRead,
    options: &ApplyOptions,
) -> Result<Applied, LayerError> {
    let root =
        rustix::fs::openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| LayerError::io("open layer folder", b"/", e))?;
    let mut applier = Applier::new(root, options)?;
    let mut reader = Reader::new(tar, options.limits.tar);
    while let Some(header) = reader.next_entry().map_err(LayerError::Archive)? {
        applier.check(&header)?;
        applier.entry(&header, &mut reader)?;
    }
    applier.finish()
}

/// The state of one application.
pub(super) struct Applier<'a> {
    pub(super) options: &'a ApplyOptions,
    pub(super) dirs: Dirs,
    /// Everything this layer has put in place; kept only where removals must spare it.
    pub(super) made: HashSet<Vec<u8>>,
    /// Removal markers now in place, in the overlay forms.
    pub(super) marked: HashSet<Vec<u8>>,
    /// The root is to hide all that is below.
    pub(super) opaque_root: bool,
    lower: Option<LowerView>,
    /// Times of folders are set when nothing more comes into them.
    times: Vec<(Vec<u8>, Timestamp)>,
    done: Applied,
    pub(super) owner: (u32, u32),
}

impl<'a> Applier<'a> {
    fn new(root: OwnedFd, options: &'a ApplyOptions) -> Result<Self, LayerError> {
        Ok(Self {
            options,
            dirs: Dirs::new(root).map_err(|e| LayerError::io("open layer folder", b"/", e))?,
            made: HashSet::new(),
            marked: HashSet::new(),
            opaque_root: false,
            lower: None,
            times: Vec::new(),
            done: Applied::default(),
            owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        })
    }

    fn check(&mut self, header: &Header) -> Result<(), LayerError> {
        let limits = &self.options.limits;
        self.done.entries += 1;
        if header.kind.has_data() {
            self.done.size = self.done.size.saturating_add(header.size);
        }
        if self.done.entries > limits.entries {
            return Err(LayerError::Limit { what: "entries", limit: limits.entries });
        }
        if self.done.size > limits.bytes {
            return Err(LayerError::Limit { what: "bytes", limit: limits.bytes });
        }
        self.check_canceled()
    }

    pub(super) fn check_canceled(&self) -> Result<(), LayerError> {
        match &self.options.cancel {
            Some(token) if token.is_cancelled() => Err(LayerError::Canceled),
            _ => Ok(()),
        }
    }

    pub(super) fn merged(&self) -> bool {
        self.options.form == ApplyForm::Merged
    }

    /// A path of the tar below the root, `..` resolved.
    pub(super) fn path(name: &[u8]) -> Result<Vec<u8>, LayerError> {
        let path = clean(name)?;
        if path.contains(&0) {
            return Err(LayerError::Escapes { entry: shown(name) });
        }
        Ok(path)
    }

    /// The tree below, mounted when first asked for.
    pub(super) fn lower(&mut self) -> Result<&LowerView, LayerError> {
        if self.lower.is_none() {
            let view =
                if self.merged() { LowerView::empty() } else { LowerView::open(&self.options.lowers)? };
            self.lower = Some(view);
        }
        Ok(self.lower.get_or_insert_with(LowerView::empty))
    }

    /// The folder at a path. Parts that the tar does not mention look as below, or belong to root with mode 0755.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<OpenDir>, LayerError> {
        if let Some(dir) = self.dirs.find(path)? {
            return Ok(dir);
        }
        self.lower()?;
        let Self { dirs, lower, times, .. } = self;
        dirs.find_or_make(path, |new, at| {
            let Some(below) = lower.as_ref().map(|l| l.open_at(at, OFlags::RDONLY | OFlags::DIRECTORY))
            else {
                return Ok(());
            };
            let below = below.map_err(|e| LayerError::io("look below at", at, e))?;
            match below {
                Some(below) => {
                    let time = copy_folder_looks(below.as_fd(), new, at)?;
                    times.push((at.to_vec(), time));
                }
                None => rustix::fs::fchmod(&new.fd, Mode::from_raw_mode(0o755))
                    .map_err(|e| LayerError::io("set mode of", at, e))?,
            }
            Ok(())
        })
    }

    pub(super) fn set_time_later(&mut self, path: &[u8], time: Timestamp) {
        self.times.push((path.to_vec(), time));
    }

    fn finish(mut self) -> Result<Applied, LayerError> {
        if self.opaque_root {
            self.hide_all_below()?;
        }
        let root = self.dirs.root().clone();
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for (path, time) in &self.times {
            let at = if path.is_empty() { &b"."[..] } else { &path[..] };
            match openat2(&root.fd, at, flags, Mode::empty(), resolve) {
                Ok(dir) => {
                    rustix::fs::futimens(&dir, &stamps(*time))
                        .map_err(|e| LayerError::io("set time of", path, e))?;
                }
                // Removed or replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(LayerError::io("set time of", path, e)),
            }
        }
        Ok(self.done)
    }
}

/// Owner, mode and attributes as below; the time is returned, to be set at the end.
fn copy_folder_looks(
    below: std::os::fd::BorrowedFd<'_>,
    new: &OpenDir,
    path: &[u8],
) -> Result<Timestamp, LayerError> {
    let failed = |doing| move |e: Errno| LayerError::io(doing, path, e);
    let meta = Meta::of(below).map_err(failed("look below at"))?;
    let owner = (rustix::fs::Uid::from_raw(meta.0.st_uid), rustix::fs::Gid::from_raw(meta.0.st_gid));
    rustix::fs::fchown(&new.fd, Some(owner.0), Some(owner.1)).map_err(failed("set owner of"))?;
    rustix::fs::fchmod(&new.fd, Mode::from_raw_mode(meta.mode())).map_err(failed("set mode of"))?;
    let attributes =
        xattrs::read_at(below, b".", super::XattrFilter::All).map_err(failed("read attributes of"))?;
    xattrs::apply(attributes.iter().map(|(k, v)| (&k[..], &v[..])), |k, v| xattrs::set(&new.fd, k, v))
        .map_err(failed("set attributes of"))?;
    Ok(meta.mtime())
}

/// Both times set to the same; what no filesystem can hold becomes 1970, as in containerd.
pub(super) fn stamps(time: Timestamp) -> Timestamps {
    // Largest second of a 64-bit count of nanoseconds, the range that Go's containerd allows.
    const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000;
    let time = if (0..=MAX_SECONDS).contains(&time.seconds) {
        Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) }
    } else {
        Timespec { tv_sec: 0, tv_nsec: 0 }
    };
    Timestamps { last_access: time, last_modification: time }
}
