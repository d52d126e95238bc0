//! Bytes that come from a store, on and on though the way breaks.

use crate::error::{Result, StoreError};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};

/// Bytes in the pieces in which they come.
pub type PieceStream = BoxStream<'static, Result<Bytes>>;

/// How often in a row a transfer is taken up again that brings nothing.
const TRIES: u32 = 4;

/// The bytes of something of a known size, taken up again where it broke off. `open` gives what is there
/// from a place on; none where there is nothing.
pub fn read_on<'a, O>(what: String, size: u64, open: O) -> BoxStream<'a, Result<Bytes>>
where
    O: Fn(u64) -> BoxFuture<'a, Result<Option<PieceStream>>> + Send + 'a,
{
    struct State<O> {
        what: String,
        open: O,
        at: u64,
        tried: u32,
        stream: Option<PieceStream>,
    }
    let state = State { what, open, at: 0, tried: 0, stream: None };
    let next = move |mut state: State<O>| async move {
        loop {
            if state.at >= size {
                return Ok(None);
            }
            let stream = match &mut state.stream {
                Some(stream) => stream,
                None => match (state.open)(state.at).await? {
                    Some(stream) => state.stream.insert(stream),
                    None => {
                        let reason = "it is not there any more".to_owned();
                        return Err(StoreError::Answer { doing: state.what, reason });
                    }
                },
            };
            let broken = match stream.next().await {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => {
                    state.at += piece.len() as u64;
                    state.tried = 0;
                    return Ok(Some((piece, state)));
                }
                Some(Err(error)) => error,
                None => {
                    let reason = format!("it ended after {} of {size} bytes", state.at);
                    StoreError::Answer { doing: state.what.clone(), reason }
                }
            };
            state.tried += 1;
            if state.tried == TRIES {
                return Err(broken);
            }
            state.stream = None;
            crate::http::wait(state.tried).await;
        }
    };
    stream::try_unfold(state, next).boxed()
}

/// All bytes of a stream, if they are not too many.
///
/// # Errors
/// The stream's, or more than `limit` bytes.
pub async fn read_all(what: &str, mut stream: PieceStream, limit: u64) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
        if all.len() as u64 > limit {
            return Err(StoreError::answer(what, format!("it is too large (more than {limit} bytes)")));
        }
    }
    Ok(all)
}
