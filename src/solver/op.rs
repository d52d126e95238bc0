use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crosskit_cache::KeyDigest;
use crosskit_llb::Vertex;
use futures::future::{BoxFuture, try_join_all};

use crate::{Input, JobContext, OpContext, OpError};

/// What runs one vertex. Made by an [`OpResolver`] when the vertex is first looked at and
/// shared by all builds that want it.
///
/// Every method may be called again after it was cancelled or, for another build, after it
/// failed because the session of a build that has left was gone. Dropping a returned future
/// cancels it and has to clean up; the context's token is cancelled first.
pub trait Op<R>: Send + Sync {
    /// How the operation is found in the cache. Must not need the inputs' results.
    fn cache_map<'a>(&'a self, cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<R>, OpError>>;

    /// Further digests by which an operation without inputs is known, counted from 0 and asked
    /// for only while nothing was found under the earlier ones. An image, say, is known by the
    /// digest of its manifest and then by that of its configuration.
    fn further_key<'a>(
        &'a self,
        cx: &'a OpContext,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<KeyDigest>, OpError>> {
        let _ = (cx, index);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Waits for the right to run, such as a place among the steps that run at once. What is
    /// returned is held while `exec` runs. The step is shown as started only after this.
    fn acquire<'a>(&'a self, cx: &'a OpContext) -> BoxFuture<'a, Result<Permit, OpError>> {
        let _ = cx;
        Box::pin(std::future::ready(Ok(Permit::default())))
    }

    /// Runs the operation on the results of its inputs, in their order, and returns the results
    /// of all its outputs.
    fn exec<'a>(&'a self, cx: &'a OpContext, inputs: Vec<R>) -> BoxFuture<'a, Result<Vec<R>, OpError>>;

    /// The same where some inputs are only promised, which happens if the cache map says that it may.
    fn exec_early<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<Input<R>>,
    ) -> BoxFuture<'a, Result<Vec<R>, OpError>>
    where
        R: Clone + Send + Sync + 'static,
    {
        Box::pin(async move {
            let inputs = try_join_all(inputs.iter().map(Input::result)).await?;
            self.exec(cx, inputs).await
        })
    }

    /// What provenance wants to know of it; whoever asks knows the type.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// The right to run, given back when dropped.
#[derive(Default)]
pub struct Permit(Option<Box<dyn Any + Send>>);

impl Permit {
    /// Holds on to something while the operation runs.
    pub fn holding(held: impl Any + Send) -> Self {
        Permit(Some(Box::new(held)))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.0.is_some()).finish()
    }
}

/// Finds what runs a vertex.
pub trait OpResolver<R>: Send + Sync {
    /// Makes the operation. The job is the one that first wanted the vertex.
    fn op(&self, vertex: &Arc<Vertex>, job: &JobContext) -> Result<Arc<dyn Op<R>>, OpError>;

    /// Whether a result that was found in a cache can't be had any more. Asked when work on it has failed.
    fn is_lost(&self, result: &R) -> bool {
        let _ = result;
        false
    }
}

/// How an operation is found in the cache.
pub struct CacheMap<R> {
    /// Of the operation without its inputs, as BuildKit computes it, so that caches can be
    /// exchanged: an image's manifest, a git commit, a command with its mounts.
    pub digest: KeyDigest,
    /// For each input, in order.
    pub deps: Vec<CacheDep<R>>,
    /// What is handed to the cache when a result of this vertex or of one that depends on it is
    /// loaded, such as where the blobs of a lazy image come from. No part of any key.
    pub load_with: Option<Arc<dyn Any + Send + Sync>>,
}

impl<R> CacheMap<R> {
    /// Of an operation whose `inputs` are known by their keys alone.
    pub fn new(digest: KeyDigest, inputs: usize) -> Self {
        CacheMap { digest, deps: (0..inputs).map(|_| CacheDep::default()).collect(), load_with: None }
    }
}

/// How an input takes part in the key.
pub struct CacheDep<R> {
    /// The part of the input that counts; goes with the input's own keys.
    pub selector: Option<KeyDigest>,
    /// Knows the input by its content, so that the same files from elsewhere are a hit.
    pub content: Option<Arc<dyn ContentKey<R>>>,
    /// Runs on the input's result before it is used, such as bringing a lazy one here. Reports
    /// to the progress of the input.
    pub preprocess: Option<Arc<dyn Preprocess<R>>>,
    /// The operation can begin when the input is only promised, as long as neither of the above
    /// needs the result.
    pub early: bool,
}

impl<R> Default for CacheDep<R> {
    fn default() -> Self {
        CacheDep { selector: None, content: None, preprocess: None, early: false }
    }
}

impl<R> Clone for CacheDep<R> {
    fn clone(&self) -> Self {
        CacheDep {
            selector: self.selector,
            content: self.content.clone(),
            preprocess: self.preprocess.clone(),
            early: self.early,
        }
    }
}

/// Computes the digest of an input's content.
pub trait ContentKey<R>: Send + Sync {
    /// Of the files that count. None when they have no digest that could be met again.
    fn digest<'a>(
        &'a self,
        cx: &'a OpContext,
        input: &'a R,
    ) -> BoxFuture<'a, Result<Option<KeyDigest>, OpError>>;
}

/// Prepares an input.
pub trait Preprocess<R>: Send + Sync {
    /// Makes the input ready for use.
    fn prepare<'a>(&'a self, cx: &'a OpContext, input: &'a R) -> BoxFuture<'a, Result<(), OpError>>;
}
