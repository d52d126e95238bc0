//! A daemon without the machine's rights: root of a user namespace, in which the ids of its user stand for all others.

mod enter;
mod folders;
mod keyring;
mod ranges;

pub use enter::{Error, enter};
pub use folders::Folders;
pub use keyring::new_keyring;
pub use ranges::{Range, ranges_of};

use std::sync::LazyLock;

/// Whether this process lives in a user namespace that is not the machine's own, where what root may do ends at what the
/// namespace owns. Found out once.
pub fn is_inside() -> bool {
    static INSIDE: LazyLock<bool> =
        LazyLock::new(|| std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_of_machine(&map)));
    *INSIDE
}

/// Whether a map of ids (user_namespaces(7)) is the one that a machine starts with.
fn is_of_machine(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_first_map_is_the_machines() {
        assert!(super::is_of_machine("         0          0 4294967295\n"));
        assert!(!super::is_of_machine("0 1000 1\n1 100000 65536\n"));
        // All ids, but as another namespace's.
        assert!(!super::is_of_machine("0 0 4294967294\n"));
        assert!(!super::is_of_machine(""));
    }
}
