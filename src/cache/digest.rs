use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A digest that cache keys are made of: of an operation, of an input's content, of a selector.
///
/// BuildKit marks what can never be met again, such as files that a client sends within one
/// session, with the algorithm name `random`. Such a key links what is known within one run of
/// the daemon and is neither stored nor exported.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest {
    random: bool,
    bytes: [u8; 32],
}

/// A text that is not `sha256:` or `random:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid cache key digest {0:?}: want sha256: or random: and 64 hexadecimal digits")]
pub struct ParseKeyDigestError(pub String);

impl KeyDigest {
    /// The SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        KeyDigest { random: false, bytes: Sha256::digest(bytes).into() }
    }

    /// A SHA-256 made elsewhere.
    pub const fn sha256(bytes: [u8; 32]) -> Self {
        KeyDigest { random: false, bytes }
    }

    /// The same digest, marked as one that can never be met again.
    #[must_use]
    pub const fn into_random(self) -> Self {
        KeyDigest { random: true, bytes: self.bytes }
    }

    /// Whether it can never be met again.
    pub const fn is_random(&self) -> bool {
        self.random
    }

    /// The 32 bytes, without the mark.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The name of the keys of an output of an operation with this digest: the digest of
    /// `<digest>@<output>`, with the mark kept (BuildKit `solver/cachemanager.go`). It is what
    /// exchanged caches hold.
    #[must_use]
    pub fn of_output(&self, output: i32) -> Self {
        let name = KeyDigest::of(format!("{self}@{output}").as_bytes());
        if self.random { name.into_random() } else { name }
    }
}

impl From<[u8; 32]> for KeyDigest {
    fn from(bytes: [u8; 32]) -> Self {
        KeyDigest::sha256(bytes)
    }
}

impl FromStr for KeyDigest {
    type Err = ParseKeyDigestError;

    fn from_str(text: &str) -> Result<Self, ParseKeyDigestError> {
        let bad = || ParseKeyDigestError(text.chars().take(80).collect());
        let (random, digits) = match text.split_once(':') {
            Some(("sha256", digits)) => (false, digits),
            Some(("random", digits)) => (true, digits),
            _ => return Err(bad()),
        };
        if digits.len() != 64 || digits.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
        Ok(KeyDigest { random, bytes })
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.random { "random:" } else { "sha256:" })?;
        let mut digits = [0; 64];
        hex::encode_to_slice(self.bytes, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
