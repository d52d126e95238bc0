//! Names of snapshots.

use rand::Rng;

/// How long a name is: 25 digits of base 36, as BuildKit's identities have.
const LENGTH: usize = 25;

/// A new name, never used before.
pub(crate) fn new_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    (0..LENGTH).map(|_| DIGITS[random.random_range(0..DIGITS.len())] as char).collect()
}

/// Whether a name, which may come from outside, can be one of ours. Keeps it from being a path.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == LENGTH && name.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}
