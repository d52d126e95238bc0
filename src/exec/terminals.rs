//! Terminals of processes.
//!
//! A runtime makes the terminal inside the container. crun hands its outer end over through a socket; runc keeps it when
//! it stays in the foreground and relays to a terminal of ours, whose changes of size have to be pointed out to it.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    pin::Pin,
};

use bytes::BytesMut;
use nix::{
    pty::{OpenptyResult, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::{
    io::{AsyncRead, AsyncReadExt, Interest},
    net::{UnixListener, unix::pipe},
    sync::mpsc::Receiver,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Output, WindowSize,
    streams::{PIECE, Terminal, feed, next},
};

/// Longest path of a socket that the kernel takes (struct sockaddr_un), in bytes.
const SOCKET_PATH: usize = 107;

/// Where the outer end of a terminal comes from.
pub(crate) enum Console {
    /// The runtime connects here and sends it.
    Socket { listener: UnixListener, path: PathBuf },
    /// It is ours, and the runtime gets the inner end.
    Relay(OpenptyResult),
}

impl Console {
    /// One that the runtime will send. Needs tokio's context.
    pub(crate) fn socket(path: PathBuf) -> io::Result<Self> {
        let listener = if path.as_os_str().len() > SOCKET_PATH {
            let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
            let name = path.file_name().unwrap_or_default();
            UnixListener::bind(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))?
        } else {
            UnixListener::bind(&path)?
        };
        Ok(Self::Socket { listener, path })
    }

    /// One of ours.
    pub(crate) fn relay(size: Option<WindowSize>) -> io::Result<Self> {
        let pair = openpty(None, None)?;
        if let Some(size) = size {
            set_size(&pair.master, size)?;
        }
        Ok(Self::Relay(pair))
    }

    /// Tells the runtime where it is.
    pub(crate) fn attach(&self, command: &mut tokio::process::Command) -> io::Result<()> {
        match self {
            Self::Socket { path, .. } => {
                let nothing = std::process::Stdio::null;
                command
                    .arg("--console-socket")
                    .arg(path)
                    .stdin(nothing())
                    .stdout(nothing())
                    .stderr(nothing());
            }
            Self::Relay(pair) => {
                let end = || pair.slave.try_clone();
                command.stdin(end()?).stdout(end()?).stderr(end()?);
            }
        }
        Ok(())
    }

    /// Passes everything on until the process has closed its end. `runtime` is the process that relays; `ended` says that
    /// it is no more, so that nothing is waited for that will not come.
    pub(crate) async fn converse(
        self,
        terminal: Terminal,
        stdin: Option<Pin<Box<dyn AsyncRead + Send>>>,
        mut stdout: Output,
        runtime: Option<i32>,
        ended: CancellationToken,
    ) -> Output {
        let (master, relayed_by) = match self {
            Self::Relay(pair) => (Ok(pair.master), runtime),
            Self::Socket { listener, .. } => {
                tokio::select! {
                    biased;
                    master = receive(&listener) => (master, None),
                    () = ended.cancelled() => return stdout,
                }
            }
        };
        let outcome = async {
            let master = master?;
            if let Some(size) = terminal.size {
                set_size(&master, size)?;
            }
            pass_on(&master, terminal.resize, stdin, &mut stdout, relayed_by).await
        };
        if let Err(error) = outcome.await {
            tracing::warn!(%error, "a terminal broke");
        }
        stdout
    }
}

async fn pass_on(
    master: &OwnedFd,
    mut resize: Option<Receiver<WindowSize>>,
    stdin: Option<Pin<Box<dyn AsyncRead + Send>>>,
    stdout: &mut Output,
    relayed_by: Option<i32>,
) -> io::Result<()> {
    rustix::io::ioctl_fionbio(master, true)?;
    let mut reader = pipe::Receiver::from_file_unchecked(File::from(master.try_clone()?))?;
    let writer = pipe::Sender::from_file_unchecked(File::from(master.try_clone()?))?;
    let typing = stdin.map(|stdin| tokio::spawn(feed(stdin, writer)));
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        tokio::select! {
            read = reader.read_buf(&mut buffer) => match read {
                // EIO is how a terminal ends when the last process has closed it.
                Ok(0) | Err(_) => break,
                Ok(_) => stdout.take(buffer.split().freeze()).await,
            },
            Some(size) = next(&mut resize) => {
                set_size(master, size)?;
                if let Some(pid) = relayed_by {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGWINCH);
                }
            }
        }
    }
    if let Some(typing) = typing {
        typing.abort();
    }
    stdout.flush().await;
    Ok(())
}

/// Takes the one descriptor that a runtime sends.
async fn receive(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept().await?;
    stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut name = [0; 256];
            recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut received = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            received
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the runtime sent no terminal"))
        })
        .await
}

fn set_size(master: &OwnedFd, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the structure is the one that this request takes.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
