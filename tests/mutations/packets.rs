//! Packets of a transfer of files.

use crate::block_on;
use crosskit_api::fsutil::{Packet, Stat};
use crosskit_session::transfer::{Memory, Receive, receive, send};
use futures::StreamExt;
use prost::Message;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What is in the file beside the folder that is received into.
const MARK: &[u8] = b"untouched";

/// Packets, each behind its length as protobuf has it.
pub fn parse(bytes: &[u8]) -> Vec<Packet> {
    let mut rest = bytes;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let Ok(packet) = Packet::decode_length_delimited(&mut rest) else { break };
        packets.push(packet);
    }
    packets
}

/// A receiver, and then a sender, get these packets. Nothing outside of the folder is made or changed.
pub fn run(bytes: &[u8]) {
    let packets = parse(bytes);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (into, beside) = (folder.path().join("into"), folder.path().join("beside"));
    std::fs::create_dir(&into).expect("a folder can be made");
    std::fs::write(&beside, MARK).expect("a file can be written");
    let before = std::fs::metadata(&beside).expect("the file is there");
    block_on(async {
        let (answers, _answered) = mpsc::unbounded_channel();
        let stream = futures::stream::iter(packets.clone().into_iter().map(Ok));
        let _ = receive(stream, answers, &into, Receive::default()).await;
        let mut tree = Memory::default();
        tree.add(Stat { path: "file".into(), mode: 0o644, ..Stat::default() }, b"content".as_slice());
        let (out, mut batches) = mpsc::channel(4);
        let stream = futures::stream::iter(packets.into_iter().map(Ok)).boxed();
        let sending = send(Arc::new(tree), stream, out, None);
        let draining = async { while batches.recv().await.is_some() {} };
        let _ = futures::future::join(sending, draining).await;
    });
    check(folder.path(), &beside, &before);
}

fn check(folder: &Path, beside: &Path, before: &std::fs::Metadata) {
    let now = std::fs::metadata(beside).expect("the file beside is there");
    assert_eq!(std::fs::read(beside).expect("it can be read"), MARK);
    let facts =
        |about: &std::fs::Metadata| (about.ino(), about.nlink(), about.mode(), about.uid(), about.gid());
    assert_eq!(facts(&now), facts(before));
    assert_eq!(std::fs::read_dir(folder).expect("it can be listed").count(), 2);
}
