//! Solving a graph that is itself a result.

use super::mount_input;
use crate::keys::build_digest;
use crate::{LocalParts, ResultRef, files};
use crosskit_api::pb;
use crosskit_solver::{CacheMap, ErrorKind, Op, OpContext, OpError};
use futures::future::BoxFuture;
use prost::Message;
use std::sync::Arc;

/// The builder that solves graphs.
const LLB_BUILDER: i64 = -1;

/// The name of the input that holds the graph.
const DEFINITION_INPUT: &str = "buildkit.llb.definition";

/// The attribute that names the graph's file.
const DEFINITION_FILE: &str = "llbbuild.filename";

/// The graph's file where nothing is said.
const DEFAULT_FILE: &str = "buildkit.llb.definition";

/// The name under which a build keeps its [`Nested`].
pub const NESTED: &str = "nested";

/// Solves graphs within a build.
pub trait SolvesNested: Send + Sync {
    /// The result of a graph.
    fn solve_nested(&self, definition: pb::Definition) -> BoxFuture<'_, Result<ResultRef, OpError>>;
}

/// What a build keeps under [`NESTED`].
pub struct Nested(pub Arc<dyn SolvesNested>);

/// Solves a graph that is in a file of an input.
pub struct BuildOp {
    /// What is asked for.
    pub op: pb::BuildOp,
    /// How many inputs there are.
    pub inputs: usize,
    /// Where the input is.
    pub parts: Arc<LocalParts>,
}

impl Op<ResultRef> for BuildOp {
    fn cache_map<'a>(&'a self, _cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        Box::pin(std::future::ready(Ok(CacheMap::new(build_digest(&self.op), self.inputs))))
    }

    fn exec<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(async move {
            let definition = self.definition(&inputs).await?;
            let nested = cx.jobs.value::<Nested>(NESTED).ok_or_else(|| {
                OpError::new(ErrorKind::Internal, "this build can't solve graphs that are results")
            })?;
            Ok(vec![nested.0.solve_nested(definition).await?])
        })
    }
}

impl BuildOp {
    async fn definition(&self, inputs: &[ResultRef]) -> Result<pb::Definition, OpError> {
        let user = |message: String| OpError::new(ErrorKind::User, message);
        if self.op.builder != LLB_BUILDER {
            return Err(user("only LLB builder is currently allowed".to_string()));
        }
        let named = self
            .op
            .inputs
            .get(DEFINITION_INPUT)
            .ok_or_else(|| user(format!("no llb definition input {DEFINITION_INPUT} found")))?;
        let input = usize::try_from(named.input)
            .ok()
            .and_then(|i| inputs.get(i))
            .ok_or_else(|| user(format!("invalid index {}", named.input)))?;
        let file = self.op.attrs.get(DEFINITION_FILE).map_or(DEFAULT_FILE, String::as_str).to_string();
        let tree = mount_input(&self.parts.snapshots, input.as_ref()).await?;
        let read = tokio::task::spawn_blocking(move || files::read_file(tree.mounted.path(), &file, None));
        let bytes = read
            .await
            .map_err(|_| OpError::canceled())?
            .map_err(|e| user(format!("failed to open the graph of a nested build: {e}")))?;
        pb::Definition::decode(bytes.as_slice())
            .map_err(|e| user(format!("the graph of a nested build is malformed: {e}")))
    }
}
