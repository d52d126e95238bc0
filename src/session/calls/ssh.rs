//! The client's ssh agents, as sockets on this machine.

use crate::{Session, SessionError, headers};
use crosskit_api::sshforward::ssh_client::SshClient;
use crosskit_api::sshforward::{BytesMessage, CheckAgentRequest};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;

/// The agent that is meant where none is named.
const DEFAULT_ID: &str = "default";

/// Bytes read at once from a connection. Messages of agents are short.
const PIECE: usize = 32 << 10;

/// A socket that leads to an agent of the client. It goes away when this is dropped, and with it
/// all connections.
pub struct SshSocket {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl SshSocket {
    /// Where it is: the only entry of its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SshSocket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
        let _ = self.path.parent().map(std::fs::remove_dir);
    }
}

impl Session {
    fn ssh(&self) -> SshClient<crate::Channel> {
        SshClient::with_origin(self.channel(), self.origin())
    }

    /// An error if the client has no agent `id`; an empty id means the default one.
    pub async fn check_ssh(&self, id: &str) -> Result<(), SessionError> {
        let request = CheckAgentRequest { id: id.to_string() };
        let answer = self.ssh().check_agent(request).await;
        answer.map(drop).map_err(SessionError::call(format!("check ssh agent {id}")))
    }

    /// Makes a socket in a new folder under `parent` that leads to the client's agent `id`.
    pub fn ssh_socket(
        &self,
        id: &str,
        parent: &Path,
        owner: (u32, u32),
        mode: u32,
    ) -> Result<SshSocket, SessionError> {
        let dir = parent.join(format!("ssh-{:016x}", rand::random::<u64>()));
        let doing = || format!("make ssh agent socket in {}", dir.display());
        std::fs::create_dir(&dir).map_err(SessionError::io(doing()))?;
        let path = dir.join("ssh_auth_sock");
        let listen = || {
            // Only the socket's own mode decides who may connect.
            rustix::fs::chmod(&dir, Mode::from_raw_mode(0o711))?;
            let listener = UnixListener::bind(&path)?;
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            rustix::fs::chownat(CWD, &path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode & 0o7777))?;
            Ok(listener)
        };
        let listener = listen().map_err(|err: std::io::Error| {
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_dir(&dir);
            SessionError::io(doing())(err)
        })?;
        let id = if id.is_empty() { DEFAULT_ID } else { id }.to_string();
        let task = tokio::spawn(accept(self.clone(), listener, id));
        Ok(SshSocket { path, task })
    }
}

async fn accept(session: Session, listener: UnixListener, id: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = session.closed() => return,
            Some(_) = connections.join_next() => {}
            connection = listener.accept() => match connection {
                Ok((connection, _)) => {
                    let (session, id) = (session.clone(), id.clone());
                    connections.spawn(async move {
                        if let Err(err) = forward(&session, connection, &id).await {
                            tracing::debug!(id, error = %err, "ssh agent connection ended");
                        }
                    });
                }
                Err(err) => return tracing::debug!(id, error = %err, "ssh agent socket ended"),
            }
        }
    }
}

/// Carries one connection to the client's agent and back.
async fn forward(session: &Session, connection: UnixStream, id: &str) -> Result<(), SessionError> {
    let doing = || format!("forward ssh agent {id}");
    let (out, outgoing) = mpsc::channel(4);
    let mut call = tonic::Request::new(ReceiverStream::new(outgoing));
    let value =
        MetadataValue::try_from(id).map_err(|_| SessionError::Invalid(format!("ssh agent id {id:?}")))?;
    call.metadata_mut().insert(headers::SSH_ID, value);
    let (mut read, mut write) = connection.into_split();
    let sending = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let len = read.read(&mut buffer).await?;
            if len == 0 || out.send(BytesMessage { data: buffer[..len].to_vec() }).await.is_err() {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    let receiving = async {
        let mut answer =
            session.ssh().forward_agent(call).await.map_err(SessionError::call(doing()))?.into_inner();
        while let Some(message) = answer.message().await.map_err(SessionError::call(doing()))? {
            write.write_all(&message.data).await.map_err(SessionError::io(doing()))?;
        }
        write.shutdown().await.map_err(SessionError::io(doing()))
    };
    // The agent's side ends it; ours may be closed for writing long before.
    tokio::pin!(receiving);
    tokio::select! {
        ended = &mut receiving => ended,
        sent = sending => {
            sent.map_err(SessionError::io(doing()))?;
            receiving.await
        }
    }
}
