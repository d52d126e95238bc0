//! The mounts of a process: what stands behind each, and what each becomes when it is over.

use super::left::LeftOver;
use super::pinned::Pinned;
use super::{InputTree, mount_input, snapshot_error};
use crate::{LocalParts, ResultRef};
use crosskit_api::pb;
use crosskit_exec::{Mount as ExecMount, Process};
use crosskit_session::{SessionError, SshSocket};
use crosskit_snapshots::{About, CacheMount, Mounted, MutableRef, Ref, Sharing};
use crosskit_solver::{ErrorKind, OpError};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

/// The root of a container.
const ROOT: &str = "/";

/// Which bits of a mode are permissions: what is asked for a secret or a socket makes no program of it that changes the
/// user who runs it.
const PERMISSIONS: u32 = 0o777;

/// The permissions to execute.
const EXECUTE: u32 = 0o111;

/// Mounts that are ready for a process.
pub struct Prepared {
    /// The root, mounted.
    pub rootfs: PathBuf,
    /// Whether the root may be written to.
    pub readonly_rootfs: bool,
    /// The other mounts, in the order in which they are mounted.
    pub mounts: Vec<ExecMount>,
    /// Where what stands behind each mount is on this machine, in the order they were asked for; None for one in memory
    /// or one that isn't there.
    pub places: Vec<Option<PathBuf>>,
    outputs: Vec<(usize, Output)>,
    held: Held,
}

/// What a mount becomes.
enum Output {
    /// What was written to it.
    Written(MutableRef),
    /// What it was: nothing could be written.
    Unchanged(Option<Ref>),
}

impl Output {
    async fn result(self) -> Result<ResultRef, OpError> {
        match self {
            Output::Unchanged(input) => Ok(input),
            Output::Written(mutable) => {
                let id = mutable.id().to_string();
                let failed = |e| snapshot_error(e).context(format!("error committing {id}"));
                mutable.commit().await.map(Some).map_err(failed)
            }
        }
    }
}

/// What has to stay until the process is over, unmounted in this order.
#[derive(Default)]
struct Held {
    pinned: Vec<Pinned>,
    sockets: Vec<SshSocket>,
    secrets: Vec<SecretFile>,
    mounted: Vec<Mounted>,
    inputs: Vec<InputTree>,
    caches: Vec<CacheMount>,
    scratch: Vec<(usize, MutableRef)>,
    folder: Option<tempfile::TempDir>,
}

/// A secret in a file on tmpfs, removed when this is dropped.
struct SecretFile(PathBuf);

impl Drop for SecretFile {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.0) {
            tracing::error!("removing a secret's file: {e}");
        }
    }
}

/// What stands behind a mount.
struct Behind {
    path: PathBuf,
    readonly: bool,
    /// How it is mounted besides.
    options: Vec<String>,
}

impl Behind {
    fn new(path: PathBuf, readonly: bool) -> Self {
        Behind { path, readonly, options: Vec::new() }
    }
}

/// Makes the mounts of a process ready. Secrets and agents are those of `sessions`; `cwd` is what relative places are
/// seen from, and `step` names the process in descriptions.
///
/// # Errors
/// A mount that makes no sense, an input or a secret that isn't there.
pub async fn prepare(
    parts: &LocalParts,
    sessions: &[String],
    mounts: &[pb::Mount],
    inputs: &[ResultRef],
    cwd: &str,
    step: &str,
) -> Result<Prepared, OpError> {
    let mut building = Building {
        parts,
        sessions,
        inputs,
        step,
        held: Held::default(),
        outputs: Vec::new(),
        caches: Vec::new(),
    };
    let mut root = None;
    let mut ready = Vec::new();
    let mut places = vec![None; mounts.len()];
    for (at, mount) in mounts.iter().enumerate() {
        let place = crosskit_llb::paths::absolute(cwd, &mount.dest);
        crosskit_llb::validate_mount_type(mount)
            .map_err(|error| OpError::new(ErrorKind::User, error.to_string()))?;
        if mount.mount_type() == pb::MountType::Tmpfs {
            let size = mount.tmpfs_opt.as_ref().map_or(0, |t| u64::try_from(t.size).unwrap_or(0));
            ready.push(ExecMount { readonly: mount.readonly, ..ExecMount::tmpfs(place, size) });
            continue;
        }
        let Some(behind) = building.behind(at, mount).await? else { continue };
        if let Some(place) = places.get_mut(at) {
            *place = Some(behind.path.clone());
        }
        if mount.dest == ROOT {
            root = Some(behind);
            continue;
        }
        let path = building.selected(mount, behind.path)?;
        ready.push(ExecMount { options: behind.options, ..ExecMount::bind(path, place, behind.readonly) });
    }
    let root =
        root.ok_or_else(|| OpError::new(ErrorKind::User, "no root mount: a process needs a mount at /"))?;
    // Outer places first, so that none hides another.
    ready.sort_by_key(|m| m.dest.split('/').filter(|p| !p.is_empty()).count());
    Ok(Prepared {
        rootfs: root.path,
        readonly_rootfs: root.readonly,
        mounts: ready,
        places,
        outputs: building.outputs,
        held: building.held,
    })
}

impl Prepared {
    /// Puts root and mounts into a process.
    pub fn mount_into(&self, process: &mut Process) {
        process.rootfs.clone_from(&self.rootfs);
        process.readonly_rootfs = self.readonly_rootfs;
        process.mounts.clone_from(&self.mounts);
    }

    /// Takes the mounts down and returns what they became, in the order of the outputs.
    ///
    /// # Errors
    /// A disk that is full.
    pub async fn finish(self) -> Result<Vec<ResultRef>, OpError> {
        let Prepared { outputs, held, .. } = self;
        drop(held);
        let mut results = Vec::with_capacity(outputs.len());
        for (_, output) in outputs {
            results.push(output.result().await?);
        }
        Ok(results)
    }

    /// Takes the mounts of a process that failed down and returns what there is behind each, in the order they were
    /// asked for: what was written there, or its input.
    ///
    /// # Errors
    /// A disk that is full.
    pub async fn left(self, mounts: &[pb::Mount], inputs: &[ResultRef]) -> Result<LeftOver, OpError> {
        let Prepared { outputs, mut held, .. } = self;
        let scratch = std::mem::take(&mut held.scratch);
        drop(held);
        let mut left = LeftOver::untouched(mounts, inputs);
        let scratch = scratch.into_iter().map(|(at, mutable)| (at, Output::Written(mutable)));
        for (at, output) in outputs.into_iter().chain(scratch) {
            let found = output.result().await?;
            if let Some(mount) = left.mounts.get_mut(at) {
                *mount = found;
            }
        }
        Ok(left)
    }
}

struct Building<'a> {
    parts: &'a LocalParts,
    sessions: &'a [String],
    inputs: &'a [ResultRef],
    step: &'a str,
    held: Held,
    outputs: Vec<(usize, Output)>,
    /// Caches that earlier mounts of the step show: id and base, and where they are.
    caches: Vec<((String, Option<String>), PathBuf)>,
}

impl Building<'_> {
    fn input(&self, mount: &pb::Mount) -> Result<Option<&Ref>, OpError> {
        if mount.input == -1 {
            return Ok(None);
        }
        usize::try_from(mount.input)
            .ok()
            .and_then(|i| self.inputs.get(i))
            .map(Option::as_ref)
            .ok_or_else(|| OpError::new(ErrorKind::User, format!("missing input {}", mount.input)))
    }

    /// None for an optional secret or socket that isn't there.
    async fn behind(&mut self, at: usize, mount: &pb::Mount) -> Result<Option<Behind>, OpError> {
        match mount.mount_type() {
            pb::MountType::Bind => self.bind(at, mount).await.map(Some),
            pb::MountType::Cache => self.cache(at, mount).await.map(Some),
            pb::MountType::Secret => self.secret(mount).await,
            pb::MountType::Ssh => self.ssh(mount).await,
            pb::MountType::Tmpfs => Ok(None),
        }
    }

    async fn bind(&mut self, at: usize, mount: &pb::Mount) -> Result<Behind, OpError> {
        let input = self.input(mount)?.cloned();
        let hands_on = mount.output != -1;
        if mount.readonly && mount.dest != ROOT && input.is_some() || mount.readonly && !hands_on {
            if hands_on {
                self.outputs.push((at, Output::Unchanged(input.clone())));
            }
            let tree = mount_input(&self.parts.snapshots, input.as_ref()).await?;
            let path = tree.mounted.path().to_path_buf();
            self.held.inputs.push(tree);
            return Ok(Behind::new(path, true));
        }
        let about = About::new(format!("mount {} from exec {}", mount.dest, self.step));
        let mutable = self.parts.snapshots.new_mutable(input.as_ref(), about).map_err(snapshot_error)?;
        let mounted = mutable.mount().await.map_err(snapshot_error)?;
        let path = mounted.path().to_path_buf();
        self.held.mounted.push(mounted);
        if hands_on {
            self.outputs.push((at, Output::Written(mutable)));
        } else {
            self.held.scratch.push((at, mutable));
        }
        Ok(Behind::new(path, mount.readonly))
    }

    async fn cache(&mut self, at: usize, mount: &pb::Mount) -> Result<Behind, OpError> {
        let options = mount
            .cache_opt
            .as_ref()
            .ok_or_else(|| OpError::new(ErrorKind::User, "missing cache mount options"))?;
        let sharing = match pb::CacheSharingOpt::try_from(options.sharing) {
            Ok(pb::CacheSharingOpt::Shared) => Sharing::Shared,
            Ok(pb::CacheSharingOpt::Private) => Sharing::Private,
            Ok(pb::CacheSharingOpt::Locked) => Sharing::Locked,
            Err(_) => {
                let message = format!("invalid cache sharing option: {}", options.sharing);
                return Err(OpError::new(ErrorKind::User, message));
            }
        };
        let input = self.input(mount)?.cloned();
        if mount.output != -1 {
            self.outputs.push((at, Output::Unchanged(input.clone())));
        }
        // Several mounts of one step may show the same cache: waiting for oneself would never end.
        let key = (options.id.clone(), input.as_ref().map(|i| i.id().to_string()));
        if let Some((_, path)) = self.caches.iter().find(|(known, _)| *known == key) {
            return Ok(Behind::new(path.clone(), mount.readonly));
        }
        let mut description = format!("cached mount {} from exec {}", mount.dest, self.step);
        if options.id != mount.dest {
            description.push_str(&format!(" with id {:?}", options.id));
        }
        let cache = self
            .parts
            .snapshots
            .cache_mount(&options.id, input.as_ref(), sharing, &description)
            .await
            .map_err(snapshot_error)?;
        let path = cache.mounted().path().to_path_buf();
        self.caches.push((key, path.clone()));
        self.held.caches.push(cache);
        Ok(Behind::new(path, mount.readonly))
    }

    async fn secret(&mut self, mount: &pb::Mount) -> Result<Option<Behind>, OpError> {
        let invalid = |message: &str| OpError::new(ErrorKind::User, message);
        let options = mount.secret_opt.as_ref().ok_or_else(|| invalid("invalid secret mount options"))?;
        if options.id.is_empty() {
            return Err(invalid("secret ID missing from mount options"));
        }
        let Some(data) = secret(self.parts, self.sessions, &options.id, options.optional).await? else {
            return Ok(None);
        };
        let path = self.folder()?.join(format!("secret-{}", self.held.secrets.len()));
        let mode = options.mode & PERMISSIONS;
        write_secret(&path, &data, options.uid, options.gid, mode).map_err(|e| {
            OpError::new(ErrorKind::Environment, format!("writing secret {}: {e}", options.id))
        })?;
        self.held.secrets.push(SecretFile(path.clone()));
        let noexec = (mode & EXECUTE == 0).then_some("noexec");
        let options = ["nosuid", "nodev"].into_iter().chain(noexec).map(str::to_string).collect();
        Ok(Some(Behind { path, readonly: true, options }))
    }

    async fn ssh(&mut self, mount: &pb::Mount) -> Result<Option<Behind>, OpError> {
        let options = mount
            .ssh_opt
            .as_ref()
            .ok_or_else(|| OpError::new(ErrorKind::User, "invalid ssh mount options"))?;
        let found = self
            .parts
            .sessions
            .any(self.sessions, |session| async move {
                session.check_ssh(&options.id).await?;
                Ok(session)
            })
            .await;
        let session = match found {
            Ok(session) => session,
            Err(e) if options.optional && !matches!(e, SessionError::Canceled) => return Ok(None),
            Err(e) => {
                let message = match e {
                    e if e.is_unimplemented() => {
                        format!("no SSH key {:?} forwarded from the client", options.id)
                    }
                    // The client's own words.
                    SessionError::Call { status, .. } => status.message().to_string(),
                    e => e.to_string(),
                };
                return Err(OpError::new(ErrorKind::User, message));
            }
        };
        let folder = self.folder()?;
        let mode = options.mode & PERMISSIONS;
        let socket =
            session.ssh_socket(&options.id, &folder, (options.uid, options.gid), mode).map_err(|e| {
                OpError::new(ErrorKind::Environment, format!("forwarding SSH agent {}: {e}", options.id))
            })?;
        let path = socket.path().to_path_buf();
        self.held.sockets.push(socket);
        Ok(Some(Behind::new(path, false)))
    }

    /// The part of a mount that its selector names.
    fn selected(&mut self, mount: &pb::Mount, whole: PathBuf) -> Result<PathBuf, OpError> {
        let selector = crosskit_llb::paths::clean(&format!("/{}", mount.selector));
        if selector == "/" || !matches!(mount.mount_type(), pb::MountType::Bind | pb::MountType::Cache) {
            return Ok(whole);
        }
        let at = self.folder()?.join(format!("part-{}", self.held.pinned.len()));
        let pinned = Pinned::new(&whole, &selector, at)?;
        let path = pinned.path().to_path_buf();
        self.held.pinned.push(pinned);
        Ok(path)
    }

    /// A folder of the step's own, in memory.
    fn folder(&mut self) -> Result<PathBuf, OpError> {
        if self.held.folder.is_none() {
            let folder =
                tempfile::Builder::new().prefix("step-").tempdir_in(&self.parts.volatile).map_err(|e| {
                    OpError::new(ErrorKind::Environment, format!("making a folder for a step: {e}"))
                })?;
            self.held.folder = Some(folder);
        }
        Ok(self.held.folder.as_ref().map(|f| f.path().to_path_buf()).unwrap_or_default())
    }
}

/// A secret of one of these clients; None if it isn't there and needn't be.
///
/// # Errors
/// A secret that isn't there, and a client that is gone.
async fn secret(
    parts: &LocalParts,
    sessions: &[String],
    id: &str,
    optional: bool,
) -> Result<Option<Vec<u8>>, OpError> {
    let found = parts.sessions.any(sessions, |session| async move { session.secret(id).await }).await;
    match found {
        Ok(data) => Ok(Some(data)),
        Err(SessionError::NotFound(_)) if optional => Ok(None),
        Err(SessionError::NotFound(_)) => {
            Err(OpError::new(ErrorKind::User, format!("secret {id}: not found")))
        }
        Err(e) => Err(session_error(e).context(format!("getting secret {id}"))),
    }
}

/// Secrets of these clients as variables of a process, `NAME=value`; one that isn't there and needn't be is empty.
///
/// # Errors
/// A secret without id, one that isn't there, and a client that is gone.
pub async fn secret_environment(
    parts: &LocalParts,
    sessions: &[String],
    asked: &[pb::SecretEnv],
) -> Result<Vec<String>, OpError> {
    let mut variables = Vec::with_capacity(asked.len());
    for wanted in asked {
        if wanted.id.is_empty() {
            let message = format!("secret ID missing for {:?} environment variable", wanted.name);
            return Err(OpError::new(ErrorKind::User, message));
        }
        let value = secret(parts, sessions, &wanted.id, wanted.optional).await?.unwrap_or_default();
        variables.push(format!("{}={}", wanted.name, String::from_utf8_lossy(&value)));
    }
    Ok(variables)
}

fn write_secret(path: &Path, data: &[u8], uid: u32, gid: u32, mode: u32) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(data)?;
    chown(path, Some(uid), Some(gid))?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// An error of a client's session as one of an operation.
pub fn session_error(error: SessionError) -> OpError {
    use crosskit_session::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    OpError::from_error(kind, error)
}
