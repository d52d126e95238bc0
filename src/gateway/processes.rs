//! The stream that carries a frontend's processes: their starts, streams, signals and ends, several at a time.

use crate::GatewayError;
use crate::containers::Containers;
use bytes::Bytes;
use crosskit_api::frontend::{
    DoneMessage, ExecMessage, FdMessage, InitMessage, ResizeMessage, StartedMessage, exec_message::Input,
};
use crosskit_exec::{Output, Stdio, Terminal, WindowSize, signal_number};
use futures::{Stream, StreamExt};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tonic::{Code, Status};

/// Messages that may wait on their way in either direction.
const WAITING: usize = 16;

/// Bytes of output in a message at most.
const PIECE: usize = 32 << 10;

/// What goes to the client.
type Answers = mpsc::Sender<Result<ExecMessage, Status>>;

/// What a process can be told.
struct Wires {
    stdin: Option<mpsc::Sender<io::Result<Bytes>>>,
    resize: mpsc::Sender<WindowSize>,
    signal: mpsc::Sender<i32>,
}

/// Answers a stream of messages about processes in these containers.
pub fn converse(
    containers: Arc<Containers>,
    messages: impl Stream<Item = Result<ExecMessage, Status>> + Send + 'static,
) -> ReceiverStream<Result<ExecMessage, Status>> {
    let (answers, out) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        if let Err(error) = listen(&containers, messages, &answers).await {
            let _ = answers.send(Err(error.to_status())).await;
        }
    });
    ReceiverStream::new(out)
}

async fn listen(
    containers: &Arc<Containers>,
    messages: impl Stream<Item = Result<ExecMessage, Status>>,
    answers: &Answers,
) -> Result<(), GatewayError> {
    let mut processes: HashMap<String, Wires> = HashMap::new();
    let mut messages = std::pin::pin!(messages);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            // Nobody hears of the processes any more; they run on until their container is released.
            () = answers.closed() => return Ok(()),
        };
        // What ends without a word was cut off by the client's going, which needs no answer.
        let Some(Ok(ExecMessage { process_id: id, input })) = message else { return Ok(()) };
        if id.is_empty() {
            return Err(GatewayError::invalid("ProcessID required"));
        }
        match (input, processes.get_mut(&id)) {
            (Some(Input::Init(_)), Some(_)) => {
                return Err(GatewayError::new(Code::AlreadyExists, format!("Process {id} already exists")));
            }
            (Some(Input::Init(asked)), None) => {
                let wires = start(containers, answers, &id, asked).await?;
                processes.insert(id, wires);
            }
            (Some(Input::File(file)), Some(wires)) => wires.write(file).await?,
            (Some(Input::Resize(size)), Some(wires)) => wires.resize(size).await,
            (Some(Input::Signal(signal)), Some(wires)) => {
                let number = signal_number(&signal.name)
                    .ok_or_else(|| GatewayError::invalid(format!("Unknown signal {}", signal.name)))?;
                let _ = wires.signal.send(number).await;
            }
            (Some(Input::File(_) | Input::Resize(_) | Input::Signal(_)), None) => {
                return Err(GatewayError::new(Code::NotFound, format!("IO for process {id:?} not found")));
            }
            // These are ours to send.
            (Some(Input::Started(_) | Input::Exit(_) | Input::Done(_)) | None, _) => {}
        }
    }
}

impl Wires {
    /// What the process gets to read. One that has ended reads no more, and that is nobody's fault.
    async fn write(&mut self, file: FdMessage) -> Result<(), GatewayError> {
        let stdin = self.stdin.as_ref().filter(|_| file.fd == 0).ok_or_else(|| {
            GatewayError::new(Code::OutOfRange, format!("fd {} unavailable to write", file.fd))
        })?;
        if !file.data.is_empty() {
            let _ = stdin.send(Ok(file.data.into())).await;
        }
        if file.eof {
            self.stdin = None;
        }
        Ok(())
    }

    async fn resize(&self, size: ResizeMessage) {
        let part = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        let size = WindowSize { rows: part(size.rows), cols: part(size.cols) };
        let _ = self.resize.send(size).await;
    }
}

/// Starts a process, and a task that tells the client about it.
async fn start(
    containers: &Containers,
    answers: &Answers,
    id: &str,
    asked: InitMessage,
) -> Result<Wires, GatewayError> {
    let container = containers.find(&asked.container_id).ok_or_else(|| {
        let message = format!("container {:?} previously released or not created", asked.container_id);
        GatewayError::new(Code::NotFound, message)
    })?;
    let (resize, sizes) = mpsc::channel(WAITING);
    let (signal, signals) = mpsc::channel(WAITING);
    let mut stdio = Stdio { signals: Some(signals), ..Stdio::default() };
    let mut stdin = None;
    if asked.fds.contains(&0) {
        let (sender, pieces) = mpsc::channel(WAITING);
        stdin = Some(sender);
        stdio.stdin = Some(Box::pin(StreamReader::new(ReceiverStream::new(pieces))));
    }
    // Output waits until the client knows that the process has started.
    let mut outputs = Vec::new();
    for &fd in asked.fds.iter().filter(|&&fd| fd != 0) {
        let (ours, theirs) = tokio::io::duplex(PIECE);
        let output = Output::Write(Box::pin(theirs));
        match fd {
            1 => stdio.stdout = output,
            2 if !asked.tty => stdio.stderr = output,
            // A terminal has one output, and other descriptors have nothing behind them: they end at once.
            _ => {}
        }
        outputs.push((fd, ours));
    }
    if asked.tty {
        stdio.terminal = Some(Terminal { size: None, resize: Some(sizes) });
    }
    let exit = container.start(asked, stdio).await?;
    let (answers, id) = (answers.clone(), id.to_string());
    tokio::spawn(async move {
        // Nobody may be there to hear of it: the process is watched by its container.
        let send = |input: Input| {
            let message = ExecMessage { process_id: id.clone(), input: Some(input) };
            answers.send(Ok(message))
        };
        let _ = send(Input::Started(StartedMessage {})).await;
        let send = &send;
        let pumps = outputs.into_iter().map(|(fd, mut from)| async move {
            let mut buffer = vec![0; PIECE];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                let data = buffer.get(..length).unwrap_or_default().to_vec();
                // It is read to its end all the same, so that the process does not wait for ever.
                let _ = send(Input::File(FdMessage { fd, eof: false, data })).await;
            }
            fd
        });
        let (fds, exit) = tokio::join!(futures::future::join_all(pumps), exit);
        let _ = send(Input::Exit(exit)).await;
        for fd in fds {
            let _ = send(Input::File(FdMessage { fd, eof: true, data: Vec::new() })).await;
        }
        let _ = send(Input::Done(DoneMessage {})).await;
    });
    Ok(Wires { stdin, resize, signal })
}
