//! Who answers when a client asks for the version.

use std::sync::LazyLock;

/// Clients switch features on by this: from 0.31 on they use everything that is announced in
/// the capabilities, and nothing of what came later.
pub const VERSION: &str = "v0.31.0";

/// The package, as shown by `debug workers` and `Info`.
pub const PACKAGE: &str = "crosskit";

/// The syntax of Dockerfiles that the builtin frontend reads.
pub const DOCKERFILE: &str = "1.26.0";

/// The program's own version.
pub const REVISION: &str = concat!("crosskit-", env!("CARGO_PKG_VERSION"));

/// All of it in four words with the program's name before: so scripts and buildx's older releases read it.
pub static SHOWN: LazyLock<String> = LazyLock::new(|| format!("{PACKAGE} {VERSION} {REVISION}"));

/// The same as a message.
pub fn record() -> crate::types::BuildkitVersion {
    crate::types::BuildkitVersion {
        package: PACKAGE.to_string(),
        version: VERSION.to_string(),
        revision: REVISION.to_string(),
        dockerfile_version: DOCKERFILE.to_string(),
    }
}
