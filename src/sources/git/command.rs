//! Running git.

use super::url::is_commit;
use crate::{SourceContext, SourceError};
use crosskit_session::SshSocket;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// How long git may clean up after itself before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// The longest output that is kept, in bytes. Objects of a repository are read this way.
const LONGEST: usize = 32 << 20;

/// What lets git in.
#[derive(Default)]
pub(super) struct Access {
    /// Arguments in front of all others.
    pub(super) arguments: Vec<String>,
    pub(super) ssh: Option<SshSocket>,
    /// A file with the keys of the hosts that may be talked to.
    pub(super) known_hosts: Option<KnownHosts>,
}

/// A file that is removed in the end.
pub(super) struct KnownHosts(pub(super) PathBuf);

impl Drop for KnownHosts {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Git, with this machine's configuration out of its sight. Cheap to clone.
#[derive(Clone)]
pub(super) struct Git {
    cx: Arc<dyn SourceContext>,
    access: Arc<Access>,
    dir: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    /// Whether the build is not shown what it says.
    quiet: bool,
}

impl Git {
    pub(super) fn new(cx: Arc<dyn SourceContext>, access: Access) -> Self {
        Self { cx, access: Arc::new(access), dir: None, work_tree: None, quiet: false }
    }

    /// The same for a repository.
    pub(super) fn in_dir(&self, dir: &Path) -> Self {
        Self { dir: Some(dir.to_path_buf()), ..self.clone() }
    }

    /// The same for a checkout.
    pub(super) fn with_work_tree(&self, work_tree: &Path) -> Self {
        Self { work_tree: Some(work_tree.to_path_buf()), ..self.clone() }
    }

    /// Runs it. Returns its output.
    pub(super) async fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, SourceError> {
        let mut arguments = arguments.to_vec();
        loop {
            let (output, error, status) = self.once(&arguments).await?;
            if status.success() {
                return Ok(output);
            }
            let stderr = String::from_utf8_lossy(&error).into_owned();
            let before = arguments.len();
            // Some servers cannot give less than all.
            if stderr.contains("--depth") || stderr.contains("shallow") {
                arguments.retain(|argument| *argument != "--depth=1");
            }
            // Others do not give a commit by its name.
            let refused = stderr.contains("not our ref") || stderr.contains("unadvertised object");
            if refused
                && arguments.len() > 2
                && arguments[0] == "fetch"
                && is_commit(arguments[arguments.len() - 1])
            {
                arguments.pop();
            }
            if arguments.len() == before {
                let doing = format!("git {}", arguments.first().unwrap_or(&""));
                let ended = match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exit status {code}"),
                    (None, signal) => format!("signal {}", signal.unwrap_or_default()),
                };
                return Err(SourceError::Git { doing, stderr, ended });
            }
        }
    }

    /// Runs it. Returns its output without white space around it.
    pub(super) async fn text(&self, arguments: &[&str]) -> Result<String, SourceError> {
        Ok(String::from_utf8_lossy(&self.run(arguments).await?).trim().to_string())
    }

    /// Whether it succeeds. What it says is for nobody.
    pub(super) async fn agrees(&self, arguments: &[&str]) -> bool {
        Self { quiet: true, ..self.clone() }.run(arguments).await.is_ok()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        // Repositories must not bring in what is on this machine as a submodule.
        command.args(["-c", "protocol.file.allow=user"]);
        if let Some(work_tree) = &self.work_tree {
            command.arg("--work-tree").arg(work_tree).current_dir(work_tree);
        }
        if let Some(dir) = &self.dir {
            command.arg("--git-dir").arg(dir);
        }
        command.args(&self.access.arguments).args(arguments);
        let mut ssh = "ssh -F /dev/null".to_string();
        match &self.access.known_hosts {
            Some(KnownHosts(path)) => ssh.push_str(&format!(" -o UserKnownHostsFile={}", path.display())),
            None => ssh.push_str(" -o StrictHostKeyChecking=no"),
        }
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", ssh)
            .env("LC_ALL", "C")
            // What stands in for other objects is not what their ids say.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        for name in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
            for name in [name.to_string(), name.to_uppercase()] {
                if let Some(value) = std::env::var_os(&name) {
                    command.env(name, value);
                }
            }
        }
        if let Some(ssh) = &self.access.ssh {
            command.env("SSH_AUTH_SOCK", ssh.path());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, because git starts helpers that outlive it.
        command.process_group(0);
        // The signal comes when the thread ends that starts git: a runtime's thread, which ends with
        // the program.
        // SAFETY: both calls are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::umask(0o022);
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    async fn once(
        &self,
        arguments: &[&str],
    ) -> Result<(Vec<u8>, Vec<u8>, std::process::ExitStatus), SourceError> {
        let doing = "run git (is it installed?)";
        let mut child = self.command(arguments).spawn().map_err(SourceError::io(doing))?;
        let group = Group(child.id());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (output, error) = tokio::join!(self.gather(out, 1), self.gather(err, 2));
        let status = child.wait().await.map_err(SourceError::io(doing))?;
        group.ended();
        Ok((output.map_err(SourceError::io(doing))?, error.map_err(SourceError::io(doing))?, status))
    }

    /// Keeps what is said, and shows it unless told otherwise.
    async fn gather(&self, from: Option<impl AsyncRead + Unpin>, stream: i32) -> std::io::Result<Vec<u8>> {
        let Some(mut from) = from else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        let mut piece = vec![0; 16 << 10];
        loop {
            let len = from.read(&mut piece).await?;
            if len == 0 {
                return Ok(all);
            }
            if all.len() + len <= LONGEST {
                all.extend_from_slice(&piece[..len]);
                if !self.quiet {
                    self.cx.log(stream, &piece[..len]);
                }
            }
        }
    }
}

/// The processes of one run. Ends them if nobody waits for them any more.
struct Group(Option<u32>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        else {
            return;
        };
        let _ = rustix::process::kill_process_group(id, rustix::process::Signal::TERM);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::time::sleep(GRACE).await;
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        });
    }
}
