//! Lending ssh agents.

use crate::{SessionError, headers};
use crosskit_api::sshforward::ssh_server::Ssh;
use crosskit_api::sshforward::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio_util::io::{ReaderStream, StreamReader};
use tonic::{Request, Response, Status, Streaming};

/// The agent that is meant where none is named.
const DEFAULT_ID: &str = "default";

/// The largest message of an agent's protocol, in bytes (OpenSSH's own limit).
const LARGEST: usize = 256 << 10;

/// What an agent answers to what it does not do (draft-miller-ssh-agent §4.1).
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// Requests that only use keys: list them (11), sign (13).
const HARMLESS: [u8; 2] = [11, 13];

/// The agents that a client lends, by id.
#[derive(Clone, Default)]
pub struct SshAgents {
    agents: HashMap<String, Agent>,
}

#[derive(Clone)]
struct Agent {
    socket: PathBuf,
    /// Whether everything may pass, not only what an agent's user needs.
    raw: bool,
    /// An agent that we started, and that ends with us.
    _own: Option<Arc<OwnAgent>>,
}

/// An agent of our own, for keys in files.
struct OwnAgent {
    _process: Child,
    dir: PathBuf,
}

impl Drop for OwnAgent {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl SshAgents {
    /// Lends an agent. `paths` are the socket of one, or files with private keys; without any, it
    /// is the agent of the environment. With `raw`, anything may be sent to the socket; otherwise
    /// keys can be used, but not changed.
    pub async fn add(&mut self, id: &str, paths: &[PathBuf], raw: bool) -> Result<(), SessionError> {
        let id = if id.is_empty() { DEFAULT_ID } else { id };
        if self.agents.contains_key(id) {
            return Err(SessionError::Invalid(format!("duplicate agent ID {id:?}")));
        }
        if raw && paths.len() != 1 {
            return Err(SessionError::Invalid("raw mode must supply exactly one path".into()));
        }
        let paths = match paths {
            [] => vec![environment()?],
            [path] if path.as_os_str().is_empty() => vec![environment()?],
            paths => paths.to_vec(),
        };
        let mut sockets = Vec::new();
        let mut keys = Vec::new();
        for path in paths {
            let there = std::fs::metadata(&path)
                .map_err(SessionError::io(format!("ssh {id}: {}", path.display())))?;
            if there.file_type().is_socket() { sockets.push(path) } else { keys.push(path) }
        }
        let agent = match (sockets.len(), keys.is_empty()) {
            (1, true) => Agent { socket: sockets.remove(0), raw, _own: None },
            (0, false) if raw => {
                return Err(SessionError::Invalid("raw mode only supported with socket paths".into()));
            }
            (0, false) => start(&keys).await?,
            (1, false) => {
                return Err(SessionError::Invalid("invalid combination of keys and sockets".into()));
            }
            _ => return Err(SessionError::Invalid("only single socket allowed".into())),
        };
        self.agents.insert(id.to_string(), agent);
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }
}

fn environment() -> Result<PathBuf, SessionError> {
    match std::env::var_os("SSH_AUTH_SOCK").filter(|v| !v.is_empty()) {
        Some(path) => Ok(path.into()),
        None => Err(SessionError::Invalid(
            "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or name a socket or key files"
                .into(),
        )),
    }
}

/// Starts an agent that holds the keys in these files.
async fn start(keys: &[PathBuf]) -> Result<Agent, SessionError> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = std::env::temp_dir().join(format!("crosskit-agent-{:016x}", rand::random::<u64>()));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .map_err(SessionError::io(format!("make {}", dir.display())))?;
    let socket = dir.join("agent");
    let process = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let process = process.map_err(|source| {
        let _ = std::fs::remove_dir_all(&dir);
        SessionError::Io { doing: "start ssh-agent for key files (is OpenSSH installed?)".into(), source }
    })?;
    let own = OwnAgent { _process: process, dir };
    // The agent makes its socket a moment after it starts.
    for attempt in 0.. {
        match UnixStream::connect(&socket).await {
            Ok(_) => break,
            Err(err) if attempt > 200 => return Err(SessionError::io("start ssh-agent for key files")(err)),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    for key in keys {
        let added = Command::new("ssh-add")
            .arg("--")
            .arg(key)
            .env("SSH_AUTH_SOCK", &socket)
            .env("SSH_ASKPASS_REQUIRE", "never")
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(SessionError::io("run ssh-add for key files (is OpenSSH installed?)"))?;
        if !added.status.success() {
            let text = String::from_utf8_lossy(&added.stderr);
            return Err(SessionError::Invalid(format!("failed to parse {}: {}", key.display(), text.trim())));
        }
    }
    Ok(Agent { socket, raw: false, _own: Some(Arc::new(own)) })
}

type Pieces = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Ssh for SshAgents {
    type ForwardAgentStream = Pieces;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        let id = request.into_inner().id;
        let id = if id.is_empty() { DEFAULT_ID } else { &id };
        match self.agents.contains_key(id) {
            true => Ok(Response::new(CheckAgentResponse {})),
            false => Err(Status::unknown(format!("unset ssh forward key {id}"))),
        }
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Pieces>, Status> {
        let id = headers::take(request.metadata(), headers::SSH_ID).into_iter().find(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| DEFAULT_ID.to_string());
        let Some(agent) = self.agents.get(&id).cloned() else {
            return Err(Status::unknown(format!("unset ssh forward key {id}")));
        };
        let connection = UnixStream::connect(&agent.socket)
            .await
            .map_err(|err| Status::unknown(format!("failed to dial agent {id}: {err}")))?;
        let incoming = request.into_inner().map(|message| match message {
            Ok(message) => Ok(bytes::Bytes::from(message.data)),
            Err(status) => Err(std::io::Error::other(status)),
        });
        let incoming = StreamReader::new(incoming);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let task = tokio::spawn(async move {
            let (agent_read, agent_write) = connection.into_split();
            match agent.raw {
                true => pass(incoming, agent_read, agent_write, ours).await,
                false => screen(incoming, agent_read, agent_write, ours).await,
            }
            .map_err(SessionError::io("forward ssh agent"))
        });
        let end = futures::stream::once(super::files::AbortOnDrop(task).failure())
            .filter_map(|f| async { f.map(Err) });
        let pieces = ReaderStream::new(theirs).map(|piece| match piece {
            Ok(data) => Ok(BytesMessage { data: data.to_vec() }),
            Err(err) => Err(Status::unknown(err.to_string())),
        });
        Ok(Response::new(Box::pin(pieces.chain(end))))
    }
}

/// Carries everything, in both directions at once.
async fn pass(
    mut incoming: impl AsyncRead + Unpin,
    mut agent_read: impl AsyncRead + Unpin,
    mut agent_write: impl AsyncWrite + Unpin,
    mut out: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let there = async {
        tokio::io::copy(&mut incoming, &mut agent_write).await?;
        agent_write.shutdown().await?;
        std::future::pending::<std::io::Result<()>>().await
    };
    let back = async {
        tokio::io::copy(&mut agent_read, &mut out).await?;
        Ok(())
    };
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

/// Carries requests that only use keys, one after the other, and refuses all others.
async fn screen(
    mut incoming: impl AsyncRead + Unpin,
    mut agent_read: impl AsyncRead + Unpin,
    mut agent_write: impl AsyncWrite + Unpin,
    mut out: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    while let Some(request) = frame(&mut incoming).await? {
        if request.get(4).is_some_and(|kind| HARMLESS.contains(kind)) {
            agent_write.write_all(&request).await?;
            let Some(answer) = frame(&mut agent_read).await? else { return Ok(()) };
            out.write_all(&answer).await?;
        } else {
            out.write_all(&FAILURE).await?;
        }
    }
    Ok(())
}

/// The next message with its length (32 bits, big endian) in front; none at the end.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    match from.read_exact(&mut len).await {
        Ok(_) => {}
        Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(err) => return Err(err),
    }
    let size = u32::from_be_bytes(len) as usize;
    if size > LARGEST {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("a message of {size} bytes"),
        ));
    }
    let mut message = len.to_vec();
    message.resize(4 + size, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}
