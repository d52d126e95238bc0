//! What the frontend needs from outside.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use crosskit_llb::{Digest, Graph, SourceFile};
use crosskit_platforms::Platform;

use crate::error::BridgeError;
use crate::lint::Warning;

/// The way out of the frontend: solves, files, image configurations, and a place for warnings.
///
/// Methods are called concurrently. Dropping a future cancels what it was waiting for.
pub trait Bridge: Send + Sync {
    /// The result of a solve; dropping it releases the result.
    type Ref: Send + Sync;

    /// Solves a graph. With `evaluate` it is done when this returns, else when the result is first read.
    fn solve(
        &self,
        graph: Graph,
        evaluate: bool,
    ) -> impl Future<Output = Result<Self::Ref, BridgeError>> + Send;

    /// A file of a result: at most `limit` bytes from its beginning, or all of it.
    fn read_file(
        &self,
        result: &Self::Ref,
        path: &str,
        limit: Option<u64>,
    ) -> impl Future<Output = Result<Vec<u8>, BridgeError>> + Send;

    /// What a name stands for, and the configuration of that image.
    fn resolve_image(
        &self,
        query: ImageQuery,
    ) -> impl Future<Output = Result<ResolvedImage, BridgeError>> + Send;

    /// When what a source stands for was last changed, in seconds since 1970: the committer's time of a git commit,
    /// what an HTTP server says of its answer, or the newest file of an archive from there. None when nothing says.
    fn source_time(
        &self,
        source: crosskit_api::pb::SourceOp,
        log_name: &str,
    ) -> impl Future<Output = Result<Option<i64>, BridgeError>> + Send;

    /// The graphs that the client gave as inputs.
    fn inputs(&self) -> impl Future<Output = Result<BTreeMap<String, Graph>, BridgeError>> + Send;

    /// Takes advice for the one who builds.
    fn warn(&self, warning: SourceWarning);
}

/// The image that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageQuery {
    /// Its full name.
    pub reference: String,
    /// For which platform; none for the daemon's own.
    pub platform: Option<Platform>,
    /// `default`, `pull` or `local`.
    pub resolve_mode: &'static str,
    /// What progress shows meanwhile.
    pub log_name: String,
    /// The client's OCI layout that it is in, instead of a registry.
    pub layout: Option<LayoutStore>,
}

/// An OCI layout of a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LayoutStore {
    /// Whose it is.
    pub session: String,
    /// Its name there.
    pub store: String,
}

/// What the name of an image stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedImage {
    /// An image.
    Image {
        /// Its name, which a policy may have changed.
        reference: String,
        /// The digest of its manifest or index; empty when not known.
        digest: String,
        /// The bytes of its configuration.
        config: Vec<u8>,
    },
    /// Something that is no image, by a policy: a source such as `local://name`.
    Other(String),
}

/// Advice, with the place that it is about.
#[derive(Debug, Clone)]
pub struct SourceWarning {
    /// The vertex that progress shows it with: the one that loads the Dockerfile.
    pub vertex: Option<Digest>,
    /// The rule, the message and the lines.
    pub warning: Warning,
    /// The file that the lines are of.
    pub file: Arc<SourceFile>,
}
