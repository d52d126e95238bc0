//! What a step needs from here, and the way each of it takes to the worker.

use super::definition::{InputSource, only_read};
use super::inputs::InputImage;
use super::session::RemoteSession;
use super::{RemoteError, RemoteWorker};
use crate::{LocalParts, Origin, ResultRef};
use crosskit_llb::Vertex;
use crosskit_platforms::Platform;
use crosskit_snapshots::Ref;
use crosskit_solver::Input;
use futures::future::try_join_all;
use std::sync::Arc;

/// The inputs of a step.
pub(super) struct Boundary {
    /// Where the worker finds each; none for an empty one.
    pub(super) sources: Vec<Option<InputSource>>,
    /// Each as an image; none for those that no result can lie on, and those that the worker has.
    pub(super) images: Vec<Option<Arc<InputImage>>>,
}

impl RemoteWorker {
    /// Makes the inputs of a step ready. With `pull`, large images are left for the worker to
    /// pull.
    pub(super) async fn boundary(
        &self,
        session: &RemoteSession,
        vertex: &Vertex,
        platform: &Platform,
        inputs: &[Input<ResultRef>],
        parts: &LocalParts,
        pull: bool,
    ) -> Result<Boundary, RemoteError> {
        let only_read = only_read(vertex);
        let way = async |at: usize, input: &Ref| -> Result<_, RemoteError> {
            let origin = vertex.inputs.get(at).and_then(|edge| parts.origins.of(&edge.vertex));
            if let (Some(Origin::Folder { key }), Some(true)) = (&origin, only_read.get(at))
                && let Some(folder) = session.folders.lend(key, input).await?
            {
                return Ok((InputSource::Folder(folder), None));
            }
            let image = session.lend(input, platform).await?;
            if let Some(Origin::Image { name, digest, pinned }) = origin
                && pull
                && self.pulls(parts.snapshots.content(), &name, &digest, platform, &image).await
            {
                return Ok((InputSource::Pulled(pinned), Some(image)));
            }
            Ok((InputSource::Lent(image.manifest), Some(image)))
        };
        let all = inputs.iter().enumerate().map(async |(at, input)| {
            if let Some(made) = session.made(input)? {
                return Ok((Some(InputSource::Made(made)), None));
            }
            match input {
                Input::Here(Some(input)) => way(at, input).await.map(|(source, image)| (Some(source), image)),
                _ => Ok((None, None)),
            }
        });
        let (sources, images) = try_join_all(all).await?.into_iter().unzip();
        Ok(Boundary { sources, images })
    }
}
