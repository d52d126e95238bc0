//! The sending end of a transfer.

use super::modes::{FileKind, kind_of};
use super::receive::Progress;
use super::tree::Tree;
use crate::SessionError;
use bytes::{Bytes, BytesMut};
use crosskit_api::fsutil::packet::PacketType;
use crosskit_api::fsutil::{Packet, Stat};
use futures::{Stream, StreamExt};
use prost::Message;
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use tokio::sync::mpsc;

/// Packets that go out together. Batches keep threads from waking each other for every packet.
pub type Batch = Vec<Packet>;

/// Packets in one batch.
const BATCH: usize = 128;

/// Bytes of file data in one packet. Peers send 32 KiB and take up to 4 MiB.
const PIECE: usize = 128 << 10;

/// Bytes of file data in one batch.
const BATCH_BYTES: usize = 256 << 10;

/// Threads that read files.
const READERS: usize = 4;

struct Sender {
    tree: Arc<dyn Tree>,
    out: mpsc::Sender<Batch>,
    files: Mutex<HashMap<u32, (String, u64)>>,
    asked: Mutex<Asked>,
    more: Condvar,
    bytes: AtomicU64,
    progress: Option<Progress>,
}

#[derive(Default)]
struct Asked {
    ids: VecDeque<u32>,
    /// Nothing more will be asked for.
    over: bool,
}

/// Ends the threads when the transfer ends, in whatever way.
struct Over(Arc<Sender>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.asked().over = true;
        self.0.more.notify_all();
    }
}

/// Sends `tree`. `packets` come from the receiver; the batches in `out` go to it. Returns when the
/// receiver has what it wants.
pub async fn send<S>(
    tree: Arc<dyn Tree>,
    mut packets: S,
    out: mpsc::Sender<Batch>,
    progress: Option<Progress>,
) -> Result<(), SessionError>
where
    S: Stream<Item = Result<Packet, tonic::Status>> + Send + Unpin,
{
    let sender = Arc::new(Sender {
        tree,
        out,
        files: Mutex::default(),
        asked: Mutex::default(),
        more: Condvar::new(),
        bytes: AtomicU64::new(0),
        progress,
    });
    let _over = Over(sender.clone());
    let (failures, mut failed) = mpsc::unbounded_channel();
    let walker = (sender.clone(), failures.clone());
    tokio::task::spawn_blocking(move || {
        if let Err(err) = walker.0.walk() {
            let data = Bytes::from(err.to_string());
            walker.0.push(vec![Packet { r#type: PacketType::PacketErr as i32, data, ..Packet::default() }]);
            let _ = walker.1.send(err);
        }
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..cores.clamp(1, READERS) {
        let (sender, failures) = (sender.clone(), failures.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(err) = sender.serve() {
                let _ = failures.send(err);
            }
        });
    }
    loop {
        let packet = tokio::select! {
            biased;
            Some(err) = failed.recv() => return Err(err),
            packet = packets.next() => packet,
        };
        let Some(packet) = packet else {
            return Err(SessionError::Protocol("the receiver's stream ended before the transfer did".into()));
        };
        let packet = packet.map_err(SessionError::call("send files"))?;
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketReq) => {
                sender.asked().ids.push_back(packet.id);
                sender.more.notify_one();
            }
            Ok(PacketType::PacketErr) => {
                let message = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(SessionError::Peer { side: "receiver", message });
            }
            Ok(PacketType::PacketFin) => break,
            _ => {}
        }
    }
    let fin = Packet { r#type: PacketType::PacketFin as i32, ..Packet::default() };
    let _ = sender.out.send(vec![fin]).await;
    if let Some(progress) = &sender.progress {
        progress(sender.bytes.load(Ordering::Relaxed), true);
    }
    Ok(())
}

impl Sender {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, HashMap<u32, (String, u64)>> {
        self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether anybody still takes what is sent.
    fn push(&self, batch: Batch) -> bool {
        if let Some(progress) = &self.progress {
            let bytes: usize = batch.iter().map(Message::encoded_len).sum();
            let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            progress(before + bytes as u64, false);
        }
        batch.is_empty() || self.out.blocking_send(batch).is_ok()
    }

    fn walk(&self) -> Result<(), SessionError> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut open = Vec::new();
        let mut next = 0;
        self.tree.walk(&mut |stat: Stat| {
            if kind_of(stat.mode) == FileKind::File {
                open.push((next, (stat.path.clone(), stat.size.max(0) as u64)));
            }
            next += 1;
            batch.push(Packet {
                r#type: PacketType::PacketStat as i32,
                stat: Some(stat),
                ..Packet::default()
            });
            if batch.len() < BATCH {
                return Ok(());
            }
            self.files().extend(open.drain(..));
            match self.push(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))) {
                true => Ok(()),
                false => Err(SessionError::Canceled),
            }
        })?;
        self.files().extend(open.drain(..));
        batch.push(Packet { r#type: PacketType::PacketStat as i32, ..Packet::default() });
        self.push(batch);
        Ok(())
    }

    /// Reads files that are asked for until nothing more is.
    fn serve(&self) -> Result<(), SessionError> {
        let mut batch = Vec::new();
        let mut batched = 0;
        let mut buffer = BytesMut::new();
        loop {
            let next = self.asked().ids.pop_front();
            let id = match next {
                Some(id) => id,
                None => {
                    // Nothing may wait for what is not asked for yet.
                    if !batch.is_empty() && !self.push(std::mem::take(&mut batch)) {
                        return Ok(());
                    }
                    batched = 0;
                    let wait =
                        self.more.wait_while(self.asked(), |asked| asked.ids.is_empty() && !asked.over);
                    let mut asked = wait.unwrap_or_else(std::sync::PoisonError::into_inner);
                    match asked.ids.pop_front() {
                        Some(id) => id,
                        None => return Ok(()),
                    }
                }
            };
            let file = self.files().remove(&id);
            let (path, size) = file.ok_or_else(|| SessionError::Protocol(format!("invalid file id {id}")))?;
            let mut content = match self.tree.open(&path) {
                Ok(content) => Some(content),
                Err(err) => {
                    tracing::warn!(path, error = %err, "a file cannot be read and is sent empty");
                    None
                }
            };
            let mut left = size;
            while let Some(reader) = &mut content {
                let data =
                    read(reader, &mut buffer, left).map_err(SessionError::io(format!("read {path}")))?;
                let Some(data) = data else { break };
                batched += data.len();
                // Enough is known of a file that ends where it said it would.
                let expected = (left as usize).min(PIECE - 1);
                left = left.saturating_sub(data.len() as u64);
                let at_end = left == 0 && data.len() <= expected;
                batch.push(Packet { r#type: PacketType::PacketData as i32, id, data, stat: None });
                if at_end {
                    break;
                }
                if batched >= BATCH_BYTES {
                    batched = 0;
                    if !self.push(std::mem::take(&mut batch)) {
                        return Ok(());
                    }
                }
            }
            batch.push(Packet { r#type: PacketType::PacketData as i32, id, ..Packet::default() });
            if batched >= BATCH_BYTES || batch.len() >= BATCH {
                batched = 0;
                if !self.push(std::mem::take(&mut batch)) {
                    return Ok(());
                }
            }
        }
    }
}

/// Reads the next piece of a file that has about `left` bytes; one byte more is asked for, so that
/// a file's end shows without another call. None at the end.
fn read(reader: &mut dyn Read, buffer: &mut BytesMut, left: u64) -> std::io::Result<Option<Bytes>> {
    let want = (left.saturating_add(1)).min(PIECE as u64) as usize;
    if buffer.capacity() < want {
        *buffer = BytesMut::with_capacity(PIECE.max(want));
    }
    buffer.resize(want, 0);
    loop {
        match reader.read(&mut buffer[..]) {
            Ok(0) => {
                buffer.clear();
                return Ok(None);
            }
            Ok(len) => {
                let data = buffer.split_to(len).freeze();
                buffer.clear();
                return Ok(Some(data));
            }
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}
