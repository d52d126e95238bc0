//! What provenance says of an input.

use crosskit_platforms::Platform;

/// An input as provenance lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// An image.
    Image {
        /// Its full name.
        reference: String,
        /// The platform, where one was asked for.
        platform: Option<Platform>,
        /// The digest of its manifest or index.
        digest: String,
        /// Whether it came from a client's layout.
        local: bool,
    },
    /// A single blob of an image.
    ImageBlob {
        /// Its full name.
        reference: String,
        /// Its digest.
        digest: String,
        /// Whether it came from a client's layout.
        local: bool,
    },
    /// A git repository.
    Git {
        /// The remote, with `#ref` where one was asked for.
        url: String,
        /// The commit.
        commit: String,
        /// The bundle that it was taken from instead of the remote.
        bundle: Option<String>,
        /// Secrets that may have been used.
        secrets: Vec<String>,
        /// The ssh agent that may have been used.
        ssh: Option<String>,
    },
    /// A file from the web.
    Http {
        /// Where it came from.
        url: String,
        /// Its digest.
        digest: String,
    },
    /// A client's folder.
    Local {
        /// Its name.
        name: String,
    },
}
