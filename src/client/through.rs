//! Daemons that are reached through a program: in a container, in a pod, on a machine with ssh. The program starts
//! `buildctl dial-stdio` there, and carries its standard input and output.

use crate::error::ClientError;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use url::Url;

/// Bytes of a program's complaints that are told.
const TOLD: u64 = 4096;

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through(Vec<String>);

/// A stream through a program.
pub(crate) struct Stream {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// What it complains about. Taken once the program has ended without a word.
    complaints: Option<JoinHandle<String>>,
    program: String,
    has_spoken: bool,
}

impl Through {
    /// The program for an address; None for schemes that need none.
    ///
    /// # Errors
    /// An address that names nobody, or has something in it that programs would take for something else.
    pub fn parse(address: &str) -> Result<Option<Through>, ClientError> {
        let failed = |why: String| ClientError::invalid(format!("address {address:?}: {why}"));
        let Some((scheme, _)) = address.split_once("://") else { return Ok(None) };
        if !matches!(
            scheme,
            "docker-container" | "podman-container" | "nerdctl-container" | "kube-pod" | "ssh"
        ) {
            return Ok(None);
        }
        let url = Url::parse(address).map_err(|e| failed(e.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() || host.starts_with('-') {
            return Err(failed(format!("{host:?} names no container, pod or host")));
        }
        let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let asked = |name: &str| asked.get(name).filter(|value| !value.is_empty()).cloned();
        let mut line: Vec<String> = Vec::new();
        match scheme {
            "docker-container" => {
                line.push("docker".into());
                line.extend(asked("context").map(|context| format!("--context={context}")));
                line.extend(["exec", "-i", host].map(String::from));
            }
            "podman-container" => line.extend(["podman", "exec", "-i", host].map(String::from)),
            "nerdctl-container" => {
                line.extend(["nerdctl", "exec"].map(String::from));
                line.extend(asked("namespace").map(|name| format!("--namespace={name}")));
                line.extend(["-i", host].map(String::from));
            }
            "kube-pod" => {
                for (what, name) in [
                    ("pod", Some(host.to_string())),
                    ("namespace", asked("namespace")),
                    ("container", asked("container")),
                ] {
                    if let Some(name) = name.filter(|name| !is_kubernetes_name(name)) {
                        return Err(failed(format!("unsupported {what} name: {name:?}")));
                    }
                }
                line.push("kubectl".into());
                line.extend(asked("context").map(|context| format!("--context={context}")));
                line.extend(asked("namespace").map(|name| format!("--namespace={name}")));
                line.push("exec".into());
                line.extend(asked("container").map(|name| format!("--container={name}")));
                line.extend(["-i", host, "--"].map(String::from));
            }
            _ => {
                if url.password().is_some() {
                    return Err(failed("plain-text password is not supported; use keys".into()));
                }
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(failed("nothing may follow the host but the daemon's socket".into()));
                }
                line.push("ssh".into());
                if !url.username().is_empty() {
                    line.extend(["-l".into(), url.username().to_string()]);
                }
                if let Some(port) = url.port() {
                    line.extend(["-p".into(), port.to_string()]);
                }
                line.extend(["--", host.trim_matches(['[', ']'])].map(String::from));
            }
        }
        line.push("buildctl".into());
        if scheme == "ssh" && !matches!(url.path(), "" | "/") {
            line.extend(["--addr".into(), format!("unix://{}", url.path())]);
        }
        line.push("dial-stdio".into());
        Ok(Some(Through(line)))
    }

    /// The command, as people would type it.
    pub fn command(&self) -> String {
        self.0.join(" ")
    }

    /// Starts the program.
    ///
    /// # Errors
    /// A program that is not there.
    pub(crate) fn open(&self) -> io::Result<Stream> {
        let (program, arguments) = self.0.split_first().ok_or_else(|| io::Error::other("no program"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C is for us: the build is told to end through the program. Without a terminal it can't ask for
        // passwords either, nobody would see the question.
        // SAFETY: between fork and exec only one system call is made.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into)) };
        let mut child =
            command.spawn().map_err(|e| io::Error::new(e.kind(), format!("starting {program}: {e}")))?;
        let taken = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = taken else {
            return Err(io::Error::other("no pipes"));
        };
        let complaints = tokio::spawn(async move {
            let mut told = Vec::new();
            let mut errors = errors.take(TOLD);
            // What can't be read is not told.
            let _ = errors.read_to_end(&mut told).await;
            let _ = tokio::io::copy(&mut errors.into_inner(), &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&told).trim().to_string()
        });
        let (complaints, program) = (Some(complaints), self.command());
        Ok(Stream { child, input, output, complaints, program, has_spoken: false })
    }
}

fn is_kubernetes_name(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.has_spoken = true;
        }
        if self.has_spoken {
            return Poll::Ready(Ok(()));
        }
        let Some(complaints) = &mut self.complaints else { return Poll::Ready(Ok(())) };
        let told = ready!(Pin::new(complaints).poll(cx)).unwrap_or_default();
        self.complaints = None;
        let status = self.child.try_wait().ok().flatten().map(|s| format!(" with {s}")).unwrap_or_default();
        Poll::Ready(Err(io::Error::other(format!("{:?} ended{status}: {told}", self.program))))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.input).poll_write(cx, buf)) {
            // Why it has ended is told where its answer is read.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe && !self.has_spoken => Poll::Ready(Ok(buf.len())),
            other => Poll::Ready(other),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_commands() {
        for (address, command) in [
            ("docker-container://b", "docker exec -i b buildctl dial-stdio"),
            ("docker-container://b?context=c", "docker --context=c exec -i b buildctl dial-stdio"),
            ("podman-container://b", "podman exec -i b buildctl dial-stdio"),
            ("nerdctl-container://b?namespace=n", "nerdctl exec --namespace=n -i b buildctl dial-stdio"),
            ("kube-pod://p", "kubectl exec -i p -- buildctl dial-stdio"),
            (
                "kube-pod://p?context=user@cluster&namespace=n&container=c",
                "kubectl --context=user@cluster --namespace=n exec --container=c -i p -- buildctl dial-stdio",
            ),
            (
                "ssh://me@host:22/run/b.sock",
                "ssh -l me -p 22 -- host buildctl --addr unix:///run/b.sock dial-stdio",
            ),
            ("ssh://host", "ssh -- host buildctl dial-stdio"),
        ] {
            assert_eq!(Through::parse(address).unwrap().unwrap().command(), command, "{address}");
        }
        assert_eq!(Through::parse("unix:///run/b.sock").unwrap(), None);
        for (bad, part) in [
            ("docker-container://", "names no container"),
            ("docker-container://--privileged", "names no container"),
            ("kube-pod://a_b", "unsupported pod name"),
            ("kube-pod://p?namespace=A", "unsupported namespace name"),
            ("ssh://me:secret@host", "password"),
            ("ssh://host?x=y", "nothing may follow"),
        ] {
            let told = Through::parse(bad).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
    }
}
