//! Something that is attested of a result, before it is known where the result goes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The key of an attestation's metadata that says why it is there.
pub const REASON: &str = "reason";

/// The key that marks an attestation that goes only where nobody has to look at it.
pub const INLINE_ONLY: &str = "inline-only";

/// The key that names the statement of a scan that is about the result itself.
pub const SBOM_CORE: &str = "sbom-core";

/// Something that is attested of a result. `F` is a filesystem, `L` what is known of an image's layers.
pub struct Attestation<F, L> {
    /// One statement, or a folder full.
    pub kind: Kind,
    /// What is said about it.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// The file or folder that it is in, and the name of the file that it goes to.
    pub path: String,
    /// The type of the statements.
    pub predicate_type: String,
    /// What it is about; the result itself if nothing is said.
    pub subjects: Vec<Subject>,
    /// What it says.
    pub content: Content<F, L>,
}

/// Kinds of attestations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A predicate.
    InToto,
    /// A folder of statements.
    Bundle,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The result; with another name if one is given.
    Own {
        /// Empty for none.
        name: String,
    },
    /// Something with these digests.
    Raw {
        /// Empty for none.
        name: String,
        /// `algorithm:hex` each.
        digests: Vec<String>,
    },
}

/// What an attestation says.
pub enum Content<F, L> {
    /// The predicate, as it will be when the layers are known.
    Made(Arc<Make<L>>),
    /// The predicate.
    Ready(Arc<[u8]>),
    /// In a filesystem, at the attestation's path. None is an empty one.
    Files(Option<F>),
}

/// Makes a predicate's JSON of what is known of the layers.
pub type Make<L> = dyn Fn(&[L]) -> Vec<u8> + Send + Sync;

impl<F: Clone, L> Clone for Content<F, L> {
    fn clone(&self) -> Self {
        match self {
            Content::Made(make) => Content::Made(Arc::clone(make)),
            Content::Ready(bytes) => Content::Ready(Arc::clone(bytes)),
            Content::Files(files) => Content::Files(files.clone()),
        }
    }
}

impl<F: Clone, L> Clone for Attestation<F, L> {
    fn clone(&self) -> Self {
        Attestation {
            kind: self.kind,
            metadata: self.metadata.clone(),
            path: self.path.clone(),
            predicate_type: self.predicate_type.clone(),
            subjects: self.subjects.clone(),
            content: self.content.clone(),
        }
    }
}

impl<F, L> fmt::Debug for Attestation<F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attestation")
            .field("kind", &self.kind)
            .field("path", &self.path)
            .field("predicate_type", &self.predicate_type)
            .finish_non_exhaustive()
    }
}

impl<F, L> Attestation<F, L> {
    /// Whether it goes only where nobody has to look at it.
    pub fn is_inline_only(&self) -> bool {
        self.metadata.get(INLINE_ONLY).is_some_and(|value| value == b"true")
    }

    /// Whether it is a scan's statement about the result itself.
    pub fn is_core(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        let name = file.split('.').next().unwrap_or_default();
        self.metadata.get(SBOM_CORE).is_some_and(|core| core == name.as_bytes())
    }
}

/// Puts the core statements of scans before the others, as readers expect them.
pub fn cores_first<F, L>(attestations: &mut [Attestation<F, L>]) {
    attestations.sort_by_key(|attestation| !attestation.is_core());
}
