//! What goes up in pieces.

use crate::error::{Result, StoreError};
use bytes::Bytes;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The size of a piece in bytes, unless there would be too many of them. What is not larger goes up whole.
pub const PIECE: u64 = 8 << 20;

/// Pieces of one object on their way at once.
pub const AT_ONCE: usize = 4;

/// Pieces in the process's memory at once: 64 MiB.
static IN_MEMORY: Semaphore = Semaphore::const_new(8);

/// A part of a file, in memory.
pub struct Piece {
    /// The bytes.
    pub bytes: Bytes,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
    _place: SemaphorePermit<'static>,
}

/// Where the pieces of something begin, and how long they are: no more than so many.
pub fn plan(size: u64, most: u64) -> Vec<(u64, u64)> {
    let piece = PIECE.max(size.div_ceil(most));
    (0..size.div_ceil(piece)).map(|at| (at * piece, piece.min(size - at * piece))).collect()
}

/// Reads a part of a file, as soon as there is room in memory.
///
/// # Errors
/// The file can't be read.
pub async fn read(file: Arc<File>, from: u64, length: u64) -> Result<Piece> {
    let doing = "read a blob to be given away";
    let failed = |source| StoreError::File { doing: doing.to_owned(), source };
    let place = IN_MEMORY.acquire().await;
    let place = place.map_err(|_| failed(std::io::Error::other("the process ends")))?;
    let reading = tokio::task::spawn_blocking(move || {
        let length = usize::try_from(length).map_err(std::io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, from)?;
        let sha256 = sha256(&bytes);
        Ok((Bytes::from(bytes), sha256))
    });
    let read = reading.await.map_err(std::io::Error::other).and_then(|read| read);
    let (bytes, sha256) = read.map_err(failed)?;
    Ok(Piece { bytes, sha256, _place: place })
}

/// In hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_and_are_not_too_many() {
        for (size, most) in
            [(0, 10), (1, 10), (PIECE, 10), (PIECE + 1, 10), (PIECE * 40 + 7, 10), (1 << 44, 10_000)]
        {
            let pieces = plan(size, most);
            assert!(pieces.len() as u64 <= most, "{size}");
            let mut at = 0;
            for (from, length) in pieces {
                assert!(from == at && length > 0, "{size}");
                at += length;
            }
            assert_eq!(at, size);
        }
    }
}
