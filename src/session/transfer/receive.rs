//! The receiving end of a transfer.

use super::changes::ChangeSink;
use super::make::Last;
use super::plan::{Adapt, Differ, Pick, Planner, Rules};
use super::write::{Wanted, Writer};
use crate::SessionError;
use bytes::Bytes;
use crosskit_api::fsutil::packet::PacketType;
use crosskit_api::fsutil::{Packet, Stat};
use futures::{Stream, StreamExt};
use prost::Message;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Told how many bytes have come so far, and whether that is all.
pub type Progress = Arc<dyn Fn(u64, bool) + Send + Sync>;

/// Packets that are taken from the stream at once.
const AT_ONCE: usize = 256;

/// Batches that may wait for a thread. Full means that the disk is slower than the line.
const WAITING: usize = 16;

/// Bytes of files that may wait for the threads that write them, all together.
const UNWRITTEN: usize = 2 << 20;

/// How a tree is received.
#[derive(Clone, Default)]
pub struct Receive {
    /// When a file that is there already is good enough.
    pub differ: Differ,
    /// Keep what is there and not sent.
    pub merge: bool,
    /// Changes entries before they are compared and made: other owners, say.
    pub map: Option<Adapt>,
    /// Who is told about changes.
    pub changes: Option<Arc<dyn ChangeSink>>,
    /// Who is told about the volume.
    pub progress: Option<Progress>,
    /// Receive only what this selects, and write the metadata of everything to `.fsutil-metadata`.
    pub only: Option<Pick>,
}

/// What was received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Entries that were sent.
    pub entries: u64,
    /// Files whose content was transferred.
    pub files: u64,
    /// Bytes of all packets.
    pub bytes: u64,
}

/// How far the threads are, for the task that waits for them.
struct Done {
    files: AtomicU64,
    /// How many there will be; not known before the walk is over.
    expected: AtomicU64,
    changed: Notify,
}

impl Done {
    fn is_complete(&self) -> bool {
        self.files.load(Ordering::Acquire) == self.expected.load(Ordering::Acquire)
    }
}

/// Pieces of files for a writer, and the room that they take up until they are written.
struct Pieces {
    pieces: Vec<(u32, Bytes)>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Where batches of work go: planning, or one of the writers.
struct Threads {
    planner: Option<mpsc::Sender<Vec<Stat>>>,
    writers: Vec<mpsc::Sender<Pieces>>,
    room: Arc<Semaphore>,
}

/// Receives a tree into the folder `destination`, which becomes equal to it. `packets` come from
/// the sender; what `answers` is given goes to it. Returns when the sender
/// has confirmed the end.
pub async fn receive<S>(
    packets: S,
    answers: mpsc::UnboundedSender<Packet>,
    destination: &Path,
    options: Receive,
) -> Result<Received, SessionError>
where
    S: Stream<Item = Result<Packet, tonic::Status>> + Send + Unpin,
{
    let mut running = Vec::new();
    let result = run(packets, answers.clone(), destination, options, &mut running).await;
    // Nothing may still be writing when the caller has its folder back.
    for thread in running {
        let _ = thread.await;
    }
    if let Err(err) = &result
        && !matches!(err, SessionError::Peer { .. } | SessionError::Call { .. })
    {
        let data = Bytes::from(err.to_string());
        let _ = answers.send(Packet { r#type: PacketType::PacketErr as i32, data, ..Packet::default() });
    }
    result
}

async fn run<S>(
    packets: S,
    answers: mpsc::UnboundedSender<Packet>,
    destination: &Path,
    options: Receive,
    running: &mut Vec<JoinHandle<()>>,
) -> Result<Received, SessionError>
where
    S: Stream<Item = Result<Packet, tonic::Status>> + Send + Unpin,
{
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(destination, flags, Mode::empty())
        .map_err(SessionError::io(format!("open {}", destination.display())))?;
    let root = Arc::new(root);
    let done = Arc::new(Done {
        files: AtomicU64::new(0),
        expected: AtomicU64::new(u64::MAX),
        changed: Notify::new(),
    });
    let (failures, mut failed) = mpsc::unbounded_channel();
    let (planned, mut last) = mpsc::channel(1);
    let mut threads = start(&root, &options, &answers, &done, &failures, planned, running)?;
    drop(failures);

    let mut received = Received::default();
    let mut chunks = packets.ready_chunks(AT_ONCE);
    loop {
        tokio::select! {
            biased;
            Some(err) = failed.recv() => return Err(err),
            chunk = chunks.next() => match chunk {
                Some(chunk) => sort(chunk, &mut threads, &mut received, options.progress.as_ref()).await?,
                None => return Err(failed.try_recv().unwrap_or_else(|_| SessionError::Protocol(
                    "the sender's stream ended before the transfer did".into()))),
            },
            () = done.changed.notified() => {}
        }
        if done.is_complete() {
            break;
        }
    }
    let last: Last = last.recv().await.ok_or_else(|| SessionError::Internal("the planner died".into()))?;
    let changes = options.changes.clone();
    let finish = tokio::task::spawn_blocking(move || last.apply(root.as_fd(), changes.as_deref()));
    finish.await.map_err(|err| SessionError::Internal(err.to_string()))??;
    received.files = done.files.load(Ordering::Acquire);
    drop(threads);

    let _ = answers.send(Packet { r#type: PacketType::PacketFin as i32, ..Packet::default() });
    drop(answers);
    // All is on disk: whatever ends the stream now, it has done its work.
    while let Some(chunk) = chunks.next().await {
        let over = |packet: &Result<Packet, tonic::Status>| match packet {
            Ok(packet) => packet.r#type == PacketType::PacketFin as i32,
            Err(_) => true,
        };
        if chunk.iter().any(over) {
            break;
        }
    }
    if let Some(progress) = &options.progress {
        progress(received.bytes, true);
    }
    Ok(received)
}

/// Hands packets to the threads that they are for.
async fn sort(
    chunk: Vec<Result<Packet, tonic::Status>>,
    threads: &mut Threads,
    received: &mut Received,
    progress: Option<&Progress>,
) -> Result<(), SessionError> {
    let mut stats = Vec::new();
    let mut data: Vec<Vec<(u32, Bytes)>> = vec![Vec::new(); threads.writers.len()];
    let mut walked = false;
    for packet in chunk {
        let packet = packet.map_err(SessionError::call("receive files"))?;
        received.bytes += packet.encoded_len() as u64;
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketStat) => match packet.stat {
                Some(stat) => stats.push(stat),
                None => walked = true,
            },
            Ok(PacketType::PacketData) => {
                let writer = packet.id as usize % threads.writers.len();
                data[writer].push((packet.id, packet.data));
            }
            Ok(PacketType::PacketErr) => {
                let message = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(SessionError::Peer { side: "sender", message });
            }
            Ok(PacketType::PacketFin | PacketType::PacketReq) => {}
            Err(_) => return Err(SessionError::Protocol(format!("unknown packet type {}", packet.r#type))),
        }
    }
    received.entries += stats.len() as u64;
    // A thread that is gone has left its reason where the caller looks next.
    if !stats.is_empty()
        && let Some(planner) = &threads.planner
    {
        let _ = planner.send(stats).await;
    }
    if walked {
        threads.planner = None;
    }
    for (writer, pieces) in threads.writers.iter().zip(data) {
        if !pieces.is_empty() {
            let bytes: usize = pieces.iter().map(|(_, data)| data.len()).sum();
            // Never more than there is; and the semaphore is never closed.
            let wanted = u32::try_from(bytes.min(UNWRITTEN)).unwrap_or(u32::MAX);
            let room = Arc::clone(&threads.room).acquire_many_owned(wanted).await.ok();
            let _ = writer.send(Pieces { pieces, _room: room }).await;
        }
    }
    if let Some(progress) = progress {
        progress(received.bytes, false);
    }
    Ok(())
}

/// Starts the planner and the writers.
fn start(
    root: &Arc<OwnedFd>,
    options: &Receive,
    answers: &mpsc::UnboundedSender<Packet>,
    done: &Arc<Done>,
    failures: &mpsc::UnboundedSender<SessionError>,
    planned: mpsc::Sender<Last>,
    running: &mut Vec<JoinHandle<()>>,
) -> Result<Threads, SessionError> {
    let wanted = Arc::new(Wanted::default());
    let answers = answers.clone();
    let request = move |id| {
        let _ = answers.send(Packet { r#type: PacketType::PacketReq as i32, id, ..Packet::default() });
    };
    let rules = Rules {
        differ: options.differ,
        merge: options.merge,
        map: options.map.clone(),
        sink: options.changes.clone(),
        only: options.only.clone(),
    };
    let mut planner = Planner::new(root.clone(), rules, wanted.clone(), Box::new(request))?;
    let (stats_sender, mut stats) = mpsc::channel::<Vec<Stat>>(WAITING);
    let (done_, failures_) = (done.clone(), failures.clone());
    running.push(tokio::task::spawn_blocking(move || {
        let mut id = 0;
        let plan = || {
            while let Some(batch) = stats.blocking_recv() {
                for stat in batch {
                    planner.entry(id, stat)?;
                    id += 1;
                }
            }
            planner.finish()
        };
        match plan() {
            Ok((requested, last)) => {
                let _ = planned.blocking_send(last);
                done_.expected.store(requested, Ordering::Release);
                done_.changed.notify_one();
            }
            Err(err) => drop(failures_.send(err)),
        }
    }));

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut writers = Vec::new();
    for _ in 0..cores.clamp(1, 4) {
        let (sender, mut batches) = mpsc::channel::<Pieces>(WAITING);
        let mut writer = Writer::new(root.clone(), wanted.clone(), options.changes.clone());
        let (done, failures) = (done.clone(), failures.clone());
        running.push(tokio::task::spawn_blocking(move || {
            while let Some(batch) = batches.blocking_recv() {
                let mut complete = 0;
                for (id, data) in batch.pieces {
                    match writer.data(id, data) {
                        Ok(Some(())) => complete += 1,
                        Ok(None) => {}
                        Err(err) => return drop(failures.send(err)),
                    }
                }
                let files = done.files.fetch_add(complete, Ordering::AcqRel) + complete;
                if files == done.expected.load(Ordering::Acquire) {
                    done.changed.notify_one();
                }
            }
        }));
        writers.push(sender);
    }
    let room = Arc::new(Semaphore::new(UNWRITTEN));
    Ok(Threads { planner: Some(stats_sender), writers, room })
}
