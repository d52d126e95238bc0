//! Taking blobs of results: checked against their digests, and refused where they are already.

use super::lent::Lent;
use crosskit_api::content::{WriteAction, WriteContentRequest, WriteContentResponse};
use crosskit_images::Digest;
use crosskit_images::content::Ingest;
use crosskit_solver::{ErrorKind, OpError};
use futures::{Stream, StreamExt};
use std::io::Write;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

/// Answers to the messages of a write.
type Answers = Pin<Box<dyn Stream<Item = Result<WriteContentResponse, Status>> + Send>>;

/// Takes one blob. The peer waits for the answer to each message.
pub(super) fn receive(lent: Lent, messages: Streaming<WriteContentRequest>) -> Answers {
    let (out, answers) = mpsc::channel(1);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(status) = take(&lent, messages, &out).await {
            let _ = out.send(Err(status)).await;
        }
    }));
    // The task goes with the stream.
    Box::pin(ReceiverStream::new(answers).map(move |answer| {
        let _held = &task;
        answer
    }))
}

async fn take(
    lent: &Lent,
    mut messages: Streaming<WriteContentRequest>,
    out: &mpsc::Sender<Result<WriteContentResponse, Status>>,
) -> Result<(), Status> {
    let mut expected: Option<Digest> = None;
    let mut total = 0;
    let mut turn = None;
    let mut ingest: Option<Ingest> = None;
    while let Some(message) = messages.message().await? {
        if !message.expected.is_empty() {
            let digest = message.expected.parse().map_err(|_| {
                Status::invalid_argument(format!("{:?}: not a sha256 digest", message.expected))
            })?;
            expected = Some(digest);
        }
        if message.total > 0 {
            total = message.total;
        }
        if let Some(digest) = expected.filter(|_| turn.is_none()) {
            let size = u64::try_from(total).unwrap_or(u64::MAX);
            turn = Some(lent.turn(&digest, size).await.ok_or_else(|| exists(&digest))?);
        }
        let action = WriteAction::try_from(message.action).unwrap_or(WriteAction::Stat);
        let held = ingest.take();
        let content = lent.content().clone();
        let step = tokio::task::spawn_blocking(move || {
            let held = match held {
                Some(held) => held,
                None => content.ingest().map_err(own_fault)?,
            };
            add(held, action, message.offset, &message.data)
        });
        let held = ended(lent, step.await)?;
        let written = held.size();
        let mut answer = WriteContentResponse {
            action: action as i32,
            offset: written as i64,
            total,
            ..WriteContentResponse::default()
        };
        if action != WriteAction::Commit {
            ingest = Some(held);
            if out.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        let digest = expected.ok_or_else(|| {
            Status::invalid_argument("a blob is only taken with the digest that it should have")
        })?;
        let size = u64::try_from(total).ok().filter(|total| *total > 0);
        let commit =
            tokio::task::spawn_blocking(move || held.commit_expecting(&digest, size).map_err(own_fault));
        ended(lent, commit.await)?;
        lent.came(digest, written);
        answer.digest = digest.to_string();
        let _ = out.send(Ok(answer)).await;
        return Ok(());
    }
    Ok(())
}

/// Why a message was not followed.
enum Refusal {
    /// The peer has sent what is wrong.
    Peer(Status),
    /// This machine can't keep it.
    Own(OpError),
}

fn own_fault(error: crosskit_images::Error) -> Refusal {
    match error.kind() {
        crosskit_images::ErrorKind::User => {
            Refusal::Peer(Status::failed_precondition(format!("{error}: failed precondition")))
        }
        _ => Refusal::Own(OpError::new(
            ErrorKind::Environment,
            format!("keeping a blob of a worker's result: {error}"),
        )),
    }
}

/// What a step on a blocking thread came to; what has failed on this side is noted.
fn ended<T>(lent: &Lent, step: Result<Result<T, Refusal>, tokio::task::JoinError>) -> Result<T, Status> {
    match step {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Refusal::Peer(status))) => Err(status),
        Ok(Err(Refusal::Own(error))) => {
            let status = Status::unavailable(error.to_string());
            lent.failed(error);
            Err(status)
        }
        Err(e) => Err(Status::internal(e.to_string())),
    }
}

/// Writes what a message carries. Blocks.
fn add(mut ingest: Ingest, action: WriteAction, offset: i64, data: &[u8]) -> Result<Ingest, Refusal> {
    if action == WriteAction::Stat {
        return Ok(ingest);
    }
    let written = ingest.size();
    if offset > 0 && offset as u64 != written {
        let text = format!("write @{offset} must occur at current offset {written}");
        return Err(Refusal::Peer(Status::out_of_range(text)));
    }
    if offset == 0 && written > 0 {
        ingest.restart().map_err(own_fault)?;
    }
    ingest.write_all(data).map_err(|e| own_fault(crosskit_images::Error::io("write blob", e)))?;
    Ok(ingest)
}

fn exists(digest: &Digest) -> Status {
    Status::already_exists(format!("blob with expected digest {digest} exists: already exists"))
}
