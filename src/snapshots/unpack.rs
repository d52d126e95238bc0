//! Filling snapshots' folders from layers and trees. Everything here happens on blocking threads.

use crate::mounts::Mounted;
use crate::node::{Node, Parents};
use crate::record::LayerBlob;
use crate::store::Inner;
use crate::{Error, Result};
use crosskit_images::compression::unpack_layer;
use crosskit_images::layers::{
    ApplyForm, ApplyOptions, DiffOptions, LayerError, LowerView, apply_layer, diff_trees, link_difference,
};
use rustix::fs::{Mode, OFlags};
use std::io::{BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// What a layer is put over.
pub(crate) enum Over {
    /// Folders of the layers below, top first: only the changes are kept.
    Layers(Vec<PathBuf>),
    /// A whole tree: it is copied and changed.
    Tree(Option<PathBuf>),
}

/// Unpacks a layer's blob into the folder of snapshot `id`.
pub(crate) async fn blob(store: &Arc<Inner>, id: &str, blob: &LayerBlob, over: Over) -> Result<()> {
    let blob = blob.clone();
    fill(store, id, move |store, folder, cancel| {
        let (form, lowers) = match &over {
            // With nothing below, the folder is the tree: marks of removals would be seen in it.
            Over::Layers(lowers) if lowers.is_empty() => (ApplyForm::Merged, Vec::new()),
            Over::Layers(lowers) => (form(store), lowers.clone()),
            Over::Tree(below) => {
                if let Some(below) = below {
                    store.driver.copy_tree(below, folder)?;
                }
                (ApplyForm::Merged, Vec::new())
            }
        };
        let options = ApplyOptions { form, lowers, cancel: Some(cancel), ..ApplyOptions::default() };
        unpack_layer(&store.content, &blob.desc.digest, Some(&blob.diff_id), open(folder)?, &options)
            .map(drop)
            .map_err(|source| Error::Content {
                doing: format!("failed to extract layer {}", blob.desc.digest),
                source,
            })
    })
    .await
}

/// Makes in the folder of snapshot `id` the layer that turns one tree into another.
pub(crate) async fn difference(
    store: &Arc<Inner>,
    id: &str,
    lower: Option<Mounted>,
    upper: Option<Mounted>,
) -> Result<()> {
    fill(store, id, move |store, folder, cancel| {
        let below = lower.as_ref().map(|m| m.path().to_path_buf());
        let above = upper.as_ref().map_or(store.empty_dir(), |m| m.path());
        if store.driver.stacks() {
            let failed = |source: LayerError| Error::Content {
                doing: format!("telling the difference of {}", above.display()),
                source: source.into(),
            };
            let below = match &below {
                Some(below) => LowerView::of_tree(open(below)?),
                None => LowerView::empty(),
            };
            return link_difference(&below, above, folder, &cancel).map_err(failed);
        }
        let options =
            ApplyOptions { form: ApplyForm::Merged, cancel: Some(cancel), ..ApplyOptions::default() };
        apply_difference(below.as_deref(), above, folder, &options)
    })
    .await
}

/// One part of a merge: what is to be changed from one tree to another.
pub(crate) struct Step {
    below: Option<PathBuf>,
    tree: PathBuf,
}

impl Step {
    pub(crate) fn of(layer: &Arc<Node>) -> Step {
        match &layer.parents {
            Parents::Layer(parent) => {
                Step { below: parent.as_ref().map(|p| p.files_dir()), tree: layer.files_dir() }
            }
            Parents::Diff { lower, upper } => Step {
                below: lower.as_ref().map(|l| l.files_dir()),
                tree: upper.as_ref().map_or_else(|| layer.store.empty_dir().to_path_buf(), |u| u.files_dir()),
            },
            Parents::Merge(_) | Parents::View(_) => Step { below: None, tree: layer.files_dir() },
        }
    }
}

/// Applies steps one after the other in the folder of snapshot `id`, for a driver that does not stack.
pub(crate) async fn join(store: &Arc<Inner>, id: &str, steps: Vec<Step>) -> Result<()> {
    fill(store, id, move |_, folder, cancel| {
        let options =
            ApplyOptions { form: ApplyForm::Merged, cancel: Some(cancel), ..ApplyOptions::default() };
        steps
            .iter()
            .try_for_each(|step| apply_difference(step.below.as_deref(), &step.tree, folder, &options))
    })
    .await
}

/// Runs the tar of a difference from one thread into another that applies it.
fn apply_difference(below: Option<&Path>, above: &Path, folder: &Path, options: &ApplyOptions) -> Result<()> {
    let failed = |source: LayerError| Error::Content {
        doing: format!("copying the difference of {}", above.display()),
        source: source.into(),
    };
    let (reader, writer) = std::io::pipe().map_err(|e| Error::file("making a pipe for", folder, e))?;
    let target = open(folder)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let lower = match below {
                Some(below) => LowerView::open(&[below])?,
                None => LowerView::empty(),
            };
            let mut writer = BufWriter::with_capacity(256 << 10, writer);
            let options = DiffOptions { cancel: options.cancel.clone(), ..DiffOptions::default() };
            diff_trees(&lower, above, &mut writer, &options)?;
            writer.flush().map_err(|source| LayerError::Io {
                doing: "write the difference of",
                path: above.display().to_string(),
                source,
            })
        });
        let mut reader = BufReader::with_capacity(256 << 10, reader);
        let applied = apply_layer(&target, &mut reader, options).map(drop);
        // What follows the end mark must be taken, or the writer would wait.
        let drained = applied.is_err() || std::io::copy(&mut reader, &mut std::io::sink()).is_ok();
        drop(reader);
        let written = writing.join().unwrap_or(Ok(()));
        // If the writer failed, the reader's failure is only its consequence.
        match written {
            Err(source) if applied.is_ok() || drained => Err(failed(source)),
            _ => applied.map_err(failed),
        }
    })
}

fn form(store: &Inner) -> ApplyForm {
    if store.driver.user_xattrs() { ApplyForm::OverlayUserXattr } else { ApplyForm::Overlay }
}

fn open(folder: &Path) -> Result<OwnedFd> {
    rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::file("opening", folder, e))
}

/// Lets `work` fill a folder, which becomes that of snapshot `id` when it is whole. Dropping the
/// future gives the work up.
async fn fill(
    store: &Arc<Inner>,
    id: &str,
    work: impl FnOnce(&Inner, &Path, CancellationToken) -> Result<()> + Send + 'static,
) -> Result<()> {
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    let (store, target) = (store.clone(), store.files_dir(id));
    let own = store.snapshot_dir(id);
    let part = own.join(format!("part-{}", ATTEMPTS.fetch_add(1, Ordering::Relaxed)));
    let cancel = CancellationToken::new();
    let _give_up = cancel.clone().drop_guard();
    let run = move || {
        if target.exists() {
            // Made whole before a crash, or by an attempt that was given up a moment too late.
            return Ok(());
        }
        std::fs::create_dir_all(&own).map_err(|e| Error::file("making folder", &own, e))?;
        std::fs::create_dir(&part).map_err(|e| Error::file("making folder", &part, e))?;
        let ready = rustix::fs::chmod(&part, Mode::from_raw_mode(0o755));
        ready.map_err(|e| Error::file("setting mode of", &part, e))?;
        let outcome = work(&store, &part, cancel);
        if let Err(why) = outcome {
            store.remover.remove(part);
            return Err(why);
        }
        match std::fs::rename(&part, &target) {
            Ok(()) => Ok(()),
            Err(_) if target.exists() => {
                store.remover.remove(part);
                Ok(())
            }
            Err(e) => Err(Error::file("putting in place", &target, e)),
        }
    };
    tokio::task::spawn_blocking(run).await.unwrap_or(Err(Error::Canceled))
}
