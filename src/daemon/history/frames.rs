//! What was said of a build as one blob: messages one after the other, each with its length before it, as BuildKit
//! keeps them (`application/vnd.buildkit.status.v0`).

use crosskit_api::control::StatusResponse;
use prost::Message;

/// Bytes of a length: little-endian.
const HEADER: usize = 4;

/// The messages as a blob.
pub fn encode(progress: &[StatusResponse]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in progress {
        let length = u32::try_from(part.encoded_len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&part.encode_to_vec());
    }
    bytes
}

/// The messages of a blob.
///
/// # Errors
/// A blob that breaks off, and what is no message.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<StatusResponse>, String> {
    let broken = || "the log of the build breaks off".to_string();
    let mut parts = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let length = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        let (part, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        parts.push(StatusResponse::decode(part).map_err(|e| e.to_string())?);
        bytes = rest;
    }
    if bytes.is_empty() { Ok(parts) } else { Err(broken()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::control::Vertex;

    #[test]
    fn what_was_said_comes_back_and_a_blob_that_breaks_off_is_refused() {
        let said = |name: &str| StatusResponse {
            vertexes: vec![Vertex { name: name.into(), ..Vertex::default() }],
            ..StatusResponse::default()
        };
        let all = [said("first"), StatusResponse::default(), said("last")];
        let bytes = encode(&all);
        assert_eq!(bytes[..4], u32::try_from(all[0].encoded_len()).unwrap().to_le_bytes());
        assert_eq!(decode(&bytes).unwrap(), all);
        for cut in [1, 6, bytes.len() - 1] {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
