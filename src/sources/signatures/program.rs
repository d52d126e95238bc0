//! Running the programs that verify.

use super::Payload;
use crate::SourceError;
use crate::temporary::Temporary;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// How long a program may take, beside the time for what it has to read.
const LIMIT: Duration = Duration::from_secs(60);

/// How much of what it has to read a program is expected to read in a second, in bytes, on the slowest machine.
const SLOWEST: u64 = 4 << 20;

/// The longest output that is looked at, in bytes.
const LONGEST: u64 = 4 << 20;

/// The name of the payload in a [`Place`].
const PAYLOAD: &str = "payload";

/// A program, and where it comes from.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// Debian's package.
    pub(super) package: &'static str,
}

/// What a program has said.
pub(super) struct Ran {
    pub(super) success: bool,
    pub(super) output: String,
    /// For people, in one line.
    pub(super) said: String,
}

/// A folder where programs find what they need, and the payload.
pub(super) struct Place {
    dir: Temporary,
    payload: File,
    size: u64,
    what: String,
}

impl Place {
    pub(super) async fn new(
        scratch: &Path,
        what: &str,
        files: Vec<(&'static str, Vec<u8>)>,
        payload: Payload,
    ) -> Result<Self, SourceError> {
        let (scratch, what) = (scratch.to_path_buf(), what.to_string());
        let making = tokio::task::spawn_blocking(move || {
            let dir = Temporary::new(&scratch, "signature")?;
            let write = |name: &str, bytes: &[u8]| {
                let mut options = OpenOptions::new();
                let mut file =
                    options.read(true).write(true).create_new(true).mode(0o600).open(dir.0.join(name))?;
                file.write_all(bytes)?;
                file.rewind()?;
                Ok::<_, std::io::Error>(file)
            };
            let fill = || {
                for (name, bytes) in files {
                    write(name, &bytes)?;
                }
                let payload = match payload {
                    Payload::File(file) => file,
                    Payload::Bytes(bytes) => write(PAYLOAD, &bytes)?,
                };
                Ok((payload.metadata()?.len(), payload))
            };
            let (size, payload) = fill().map_err(SourceError::io::<std::io::Error>(format!(
                "prepare {} to verify the signature of {what}",
                dir.0.display()
            )))?;
            Ok(Self { dir, payload, size, what })
        });
        making.await.map_err(SourceError::thread)?
    }

    /// Runs a program in it, which may read the payload from its input.
    pub(super) async fn run(&self, program: &Program, arguments: &[&str]) -> Result<Ran, SourceError> {
        let failed = |reason: String| SourceError::Program {
            doing: format!("verify the signature of {}", self.what),
            program: program.name,
            reason,
        };
        let broken = |err: std::io::Error| failed(err.to_string());
        let mut payload = self.payload.try_clone().map_err(broken)?;
        payload.rewind().map_err(broken)?;
        let spawned = Command::new(program.name)
            .args(arguments)
            .current_dir(&self.dir.0)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.dir.0)
            .env("LC_ALL", "C")
            .stdin(payload)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(err) if err.kind() == ErrorKind::NotFound => {
                return Err(failed(format!(
                    "not installed where the daemon runs: install it (Debian package {})",
                    program.package
                )));
            }
            Err(err) => return Err(broken(err)),
        };
        let limit = LIMIT + Duration::from_secs(self.size / SLOWEST);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let ended = tokio::time::timeout(limit, async {
            let (output, error) = tokio::try_join!(gather(out), gather(err))?;
            Ok((output, error, child.wait().await?))
        });
        let (output, error, status) = match ended.await {
            Ok(ended) => ended.map_err(broken)?,
            Err(_) => {
                return Err(failed(format!("not done after {} seconds, and ended", limit.as_secs())));
            }
        };
        let said: Vec<&str> = error.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Ok(Ran { success: status.success(), output, said: said.join("; ") })
    }
}

/// All that is said, up to a limit.
async fn gather(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let Some(mut from) = from else { return Ok(String::new()) };
    let mut all = Vec::new();
    (&mut from).take(LONGEST).read_to_end(&mut all).await?;
    if all.len() as u64 == LONGEST {
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn place(scratch: &Path) -> Place {
        let payload = Payload::Bytes(b"payload".to_vec());
        Place::new(scratch, "a test", vec![("file", b"text".to_vec())], payload).await.unwrap()
    }

    #[tokio::test]
    async fn a_program_sees_its_files_and_the_payload_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path()).await;
        let shell = Program { name: "sh", package: "dash" };
        for _ in 0..2 {
            let ran = place
                .run(&shell, &["-c", "cat; cat file; env | grep -v PWD; echo a >&2; echo b >&2; exit 3"]);
            let ran = ran.await.unwrap();
            assert!(!ran.success && ran.output.starts_with("payloadtext"), "{}", ran.output);
            assert_eq!(ran.said, "a; b");
            let variables = ran.output.lines().count();
            assert!(ran.output.contains("LC_ALL=C") && variables < 6, "{}", ran.output);
        }
        let none = Program { name: "crosskit-no-such-program", package: "nothing" };
        let err = place.run(&none, &[]).await.err().unwrap();
        assert_eq!(err.kind(), crate::ErrorKind::Environment);
        assert_eq!(
            err.to_string(),
            "verify the signature of a test: crosskit-no-such-program: not installed where the daemon runs: install it \
             (Debian package nothing)"
        );
    }

    #[tokio::test]
    async fn who_waits_no_more_leaves_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path()).await;
        let pid = place.dir.0.join("pid");
        let running = tokio::spawn(async move {
            let shell = Program { name: "sh", package: "dash" };
            place
                .run(&shell, &["-c", "echo $$ >new; mv new pid; exec sleep 1000"])
                .await
                .map(|ran| ran.success)
        });
        while !pid.exists() {
            tokio::task::yield_now().await;
        }
        let process = Path::new("/proc").join(std::fs::read_to_string(&pid).unwrap().trim());
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        while process.exists() || std::fs::read_dir(scratch.path()).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
