//! `local` and `tar`: the files of a result, as a folder at the client or as a tar file.

use crate::attestations::{self, Attested};
use crate::options::TreeOptions;
use crate::result::NamedPlatform;
use crate::{
    Export, ExportError, Exporter, Exporters, Part, Report, blocking, session_error, snapshot_error, stream,
};
use crosskit_api::fsutil::Stat;
use crosskit_attest::Named;
use crosskit_images::layers::{Over, Rounding, TreeOptions as WriteOptions, write_tree};
use crosskit_images::tar::{Header, Kind, Timestamp, Writer};
use crosskit_session::transfer::{
    FileKind, Folder, Memory, Merged, Subfolders, Tree, kind_of, mode_from_unix,
};
use crosskit_snapshots::Mounted;
use futures::future::BoxFuture;
use sha2::Digest as _;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::SystemTime;

/// What the transfer is called in the progress.
const COPYING: &str = "copying files";

/// The mode of a file with a statement.
const STATEMENT_MODE: u32 = libc::S_IFREG | 0o600;

/// Bytes that are hashed at once.
const PIECE: usize = 256 << 10;

/// The mode of a platform's folder.
const FOLDER_MODE: u32 = libc::S_IFDIR | 0o755;

struct Files {
    exporters: Exporters,
    at: usize,
    options: TreeOptions,
}

/// `type=local`.
pub fn resolve_local(
    exporters: &Exporters,
    at: usize,
    attrs: &BTreeMap<String, String>,
) -> Result<Box<dyn Exporter>, ExportError> {
    let options = TreeOptions::parse(attrs)?;
    Ok(Box::new(Local(Files { exporters: exporters.clone(), at, options })))
}

/// `type=tar`.
pub fn resolve_tar(
    exporters: &Exporters,
    at: usize,
    attrs: &BTreeMap<String, String>,
) -> Result<Box<dyn Exporter>, ExportError> {
    let options = TreeOptions::parse(attrs)?;
    Ok(Box::new(Tar(Files { exporters: exporters.clone(), at, options })))
}

/// The files of one platform, mounted as long as this is kept.
struct PlatformTree {
    platform: NamedPlatform,
    tree: Arc<dyn Tree>,
    epoch: Option<i64>,
    _mounted: Option<Mounted>,
}

/// The files of one platform for an archive.
struct Root {
    folder: String,
    epoch: Option<i64>,
    mounted: Option<Mounted>,
    /// What is attested of them.
    attested: Option<Memory>,
}

/// Writes the platforms' files as one tar, each into a folder of its own if asked.
fn write_tar(roots: &[Root], in_folders: bool, out: impl Write) -> Result<(), ExportError> {
    let failed = |e: &dyn std::fmt::Display| {
        ExportError::new(crate::ErrorKind::Environment, format!("writing tarball: {e}"))
    };
    let mut tar = Writer::new(out);
    for root in roots {
        let mut options = WriteOptions::default();
        if let Some(epoch) = root.epoch {
            options.times = Rounding::Fixed(epoch);
        }
        if in_folders {
            let mut header = Header::new(format!("{}/", root.folder), Kind::Directory);
            header.mode = 0o755;
            header.mtime = Timestamp::from_seconds(root.epoch.unwrap_or(0));
            tar.entry(&header).map_err(|e| failed(&e))?;
            options.prefix.clone_from(&root.folder);
        }
        let attested = root.attested.iter().flat_map(Memory::files).map(|(stat, content)| {
            let name = if in_folders { format!("{}/{}", root.folder, stat.path) } else { stat.path.clone() };
            let time = Timestamp::from_seconds(stat.mod_time.div_euclid(1_000_000_000));
            Over { name: name.into_bytes(), mode: 0o600, time, content: content.to_vec() }
        });
        options.over = attested.collect();
        let folder = root.mounted.as_ref().map(|mounted| std::fs::File::open(mounted.path()));
        let folder = folder.transpose().map_err(|e| failed(&e))?;
        write_tree(folder, &mut tar, &options).map_err(|e| failed(&e))?;
    }
    tar.finish().map_err(|e| failed(&e))?;
    Ok(())
}

impl Files {
    fn splits(&self, export: &Export) -> bool {
        self.options.platform_split.unwrap_or(export.is_map)
    }

    async fn trees(&self, export: &Export) -> Result<Vec<PlatformTree>, ExportError> {
        let platforms = each_once(export)?;
        let mut trees = Vec::with_capacity(platforms.len());
        for platform in platforms {
            let epoch = self.options.epoch.or(export.epoch(&platform)?);
            let (tree, mounted): (Arc<dyn Tree>, _) = match export.of(&platform)? {
                None => (Arc::new(Memory::default()), None),
                Some(found) => {
                    let mounted = found.mount_readonly().await.map_err(snapshot_error)?;
                    let mut folder = Folder::open(mounted.path()).map_err(session_error)?;
                    if let Some(epoch) = epoch {
                        folder = folder.map(Arc::new(move |stat: &mut Stat| {
                            stat.mod_time = nanoseconds(epoch);
                            true
                        }));
                    }
                    (Arc::new(folder), Some(mounted))
                }
            };
            let tree = match self.attested(export, &platform, &tree, epoch).await? {
                Some(files) => {
                    Arc::new(Merged::new([tree, Arc::new(files) as Arc<dyn Tree>])) as Arc<dyn Tree>
                }
                None => tree,
            };
            trees.push(PlatformTree { platform, tree, epoch, _mounted: mounted });
        }
        Ok(trees)
    }

    /// Files with what is attested of a platform's files.
    async fn attested(
        &self,
        export: &Export,
        platform: &NamedPlatform,
        tree: &Arc<dyn Tree>,
        epoch: Option<i64>,
    ) -> Result<Option<Memory>, ExportError> {
        let attested: Vec<Attested> =
            export.attested_of(platform).iter().filter(|one| !one.is_inline_only()).cloned().collect();
        if attested.is_empty() {
            return Ok(None);
        }
        let tree = Arc::clone(tree);
        let own = blocking(move || hashed(tree.as_ref())).await?;
        let content = &self.exporters.images.content;
        let stated = attestations::statements(&attested, own, &[], content).await?;
        let time = match epoch {
            Some(epoch) => nanoseconds(epoch),
            None => now(),
        };
        let mut files = Memory::default();
        let mut known = HashSet::new();
        for one in stated {
            let mut name = format!("{}{}", self.options.attestation_prefix, one.file);
            if export.is_map && !self.splits(export) {
                let (stem, extension) = match name.rsplit_once('.') {
                    Some((stem, extension)) => (stem.to_string(), format!(".{extension}")),
                    None => (name.clone(), String::new()),
                };
                name = format!("{stem}.{}{extension}", platform.id.replace('/', "_"));
            }
            if !known.insert(name.clone()) {
                return Err(ExportError::user(format!("duplicate attestation path name {name}")));
            }
            let bytes = one.statement.to_readable_json().map_err(|e| ExportError::internal(e.to_string()))?;
            let stat =
                Stat { path: name, mode: mode_from_unix(STATEMENT_MODE), mod_time: time, ..Stat::default() };
            files.add(stat, bytes);
        }
        Ok(Some(files))
    }

    /// The roots of the platforms' files, mounted.
    async fn roots(&self, export: &Export) -> Result<Vec<Root>, ExportError> {
        let platforms = each_once(export)?;
        let mut roots = Vec::with_capacity(platforms.len());
        for platform in platforms {
            let epoch = self.options.epoch.or(export.epoch(&platform)?);
            let mounted = match export.of(&platform)? {
                Some(found) => Some(found.mount_readonly().await.map_err(snapshot_error)?),
                None => None,
            };
            let tree: Arc<dyn Tree> = match &mounted {
                Some(mounted) => Arc::new(Folder::open(mounted.path()).map_err(session_error)?),
                None => Arc::new(Memory::default()),
            };
            let attested = self.attested(export, &platform, &tree, epoch).await?;
            roots.push(Root { folder: platform.id.replace('/', "_"), epoch, mounted, attested });
        }
        Ok(roots)
    }

    /// All files as one tree: platforms in folders of their own, or laid over each other.
    async fn joined(&self, export: &Export) -> Result<(Arc<dyn Tree>, Vec<PlatformTree>), ExportError> {
        let trees = self.trees(export).await?;
        if self.splits(export) {
            let folders = trees.iter().map(|t| (folder_stat(t), Arc::clone(&t.tree)));
            let joined = Subfolders::new(folders).map_err(session_error)?;
            return Ok((Arc::new(joined), trees));
        }
        if let [only] = trees.as_slice() {
            return Ok((Arc::clone(&only.tree), trees));
        }
        let named = trees.iter().map(|t| (t.platform.id.clone(), Arc::clone(&t.tree))).collect();
        blocking(move || refuse_conflicts(named)).await?;
        Ok((Arc::new(Merged::new(trees.iter().map(|t| Arc::clone(&t.tree)))), trees))
    }
}

/// The plain files of a tree with their digests.
fn hashed(tree: &dyn Tree) -> Result<Vec<Named>, ExportError> {
    let mut files = Vec::new();
    tree.walk(&mut |stat| {
        if kind_of(stat.mode) == FileKind::File {
            files.push(stat.path);
        }
        Ok(())
    })
    .map_err(session_error)?;
    let failed = |path: &str, e: std::io::Error| {
        ExportError::new(crate::ErrorKind::Environment, format!("reading {path}: {e}"))
    };
    let hash = |path: String| {
        let mut content = tree.open(&path).map_err(|e| failed(&path, e))?;
        let mut hash = sha2::Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            match content.read(&mut piece).map_err(|e| failed(&path, e))? {
                0 => break,
                read => hash.update(piece.get(..read).unwrap_or_default()),
            }
        }
        let digest = BTreeMap::from([("sha256".to_string(), hex::encode(hash.finalize()))]);
        Ok(Named { name: path, digest })
    };
    files.into_iter().map(hash).collect()
}

/// The platforms whose files are wanted. One that was asked for twice has its files once.
fn each_once(export: &Export) -> Result<Vec<NamedPlatform>, ExportError> {
    let mut platforms = export.platforms()?;
    if !export.is_map && platforms.len() > 1 {
        return Err(ExportError::user("unable to export multiple platforms without map"));
    }
    let mut seen = HashSet::new();
    platforms.retain(|platform| seen.insert(platform.id.clone()));
    Ok(platforms)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn nanoseconds(seconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000)
}

fn folder_stat(tree: &PlatformTree) -> Stat {
    Stat {
        path: tree.platform.id.replace('/', "_"),
        mode: mode_from_unix(FOLDER_MODE),
        mod_time: tree.epoch.map_or(0, nanoseconds),
        ..Stat::default()
    }
}

/// Platforms may share folders, but no file: one would be lost.
fn refuse_conflicts(trees: Vec<(String, Arc<dyn Tree>)>) -> Result<(), ExportError> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (at, (platform, tree)) in trees.iter().enumerate() {
        let mut conflict = None;
        tree.walk(&mut |stat| {
            if kind_of(stat.mode) != FileKind::Dir
                && conflict.is_none()
                && let Some(before) = seen.insert(stat.path.clone(), at)
            {
                conflict = Some((stat.path, before));
            }
            Ok(())
        })
        .map_err(session_error)?;
        if let Some((path, before)) = conflict {
            return Err(ExportError::user(format!(
                "cannot overwrite {path} from {} with {platform} when split option is disabled",
                trees[before].0
            )));
        }
    }
    Ok(())
}

struct Local(Files);

impl Exporter for Local {
    fn streams(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        "exporting to client directory".to_string()
    }

    fn export<'a>(
        &'a self,
        result: &'a Export,
        report: Arc<dyn Report>,
        session: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, ExportError>> {
        Box::pin(async move {
            crate::tell(&report, &self.0.options.remarks);
            let session = self.0.exporters.session(session).await?;
            let (tree, trees) = self.0.joined(result).await?;
            let started = SystemTime::now();
            let label = match trees.as_slice() {
                [only] if self.0.splits(result) => format!("{COPYING} {}", only.platform.id),
                _ => COPYING.to_string(),
            };
            let progress = {
                let (report, label) = (Arc::clone(&report), label.clone());
                Arc::new(move |bytes: u64, done: bool| {
                    report.status(&label, "transferring", bytes, 0, started, done)
                })
            };
            // The whole tree goes in one transfer, so whatever the client wants to delete is known to it.
            session
                .send_dir(tree, self.0.at, self.0.options.delete, Some(progress))
                .await
                .map_err(session_error)?;
            drop(trees);
            Ok(BTreeMap::new())
        })
    }
}

struct Tar(Files);

impl Exporter for Tar {
    fn streams(&self) -> bool {
        true
    }

    fn name(&self) -> String {
        "exporting to client tarball".to_string()
    }

    fn export<'a>(
        &'a self,
        result: &'a Export,
        report: Arc<dyn Report>,
        session: &'a str,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, ExportError>> {
        Box::pin(async move {
            crate::tell(&report, &self.0.options.remarks);
            let session = self.0.exporters.session(session).await?;
            let roots = self.0.roots(result).await?;
            let part = Part::begin(&report, "sending tarball");
            let file = session.send_file(self.0.at, &BTreeMap::new()).await.map_err(session_error)?;
            let in_folders = result.is_map;
            stream::send(file, move |out| write_tar(&roots, in_folders, out)).await?;
            part.end();
            Ok(BTreeMap::new())
        })
    }
}
