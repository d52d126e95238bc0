//! Short Dockerfiles with what is said of each. Texts and lines are those of BuildKit's frontend.

mod advice;
mod refusals;

use std::path::Path;
use std::sync::Arc;

use crosskit_dockerfile::{DockerfileError, SourceWarning};

use crate::{Case, Folder, Image, build};

/// A configuration that is for another platform than the one asked for.
const ARM: &str = r#"{"architecture":"arm64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:aa"]}}"#;

/// What becomes of a file beside the ignore file of `cases/lint`, and the advice given.
fn outcome(
    file: &str,
    options: &[(&str, &str)],
) -> (Result<serde_json::Value, DockerfileError>, Vec<SourceWarning>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lint");
    let mut case = Case {
        images: vec![Image {
            reference: "docker.io/library/other:latest".into(),
            platform: "linux/amd64".into(),
            digest: format!("sha256:{}", "a".repeat(64)),
            config: ARM.into(),
        }],
        ..Case::default()
    };
    case.options.extend(options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let folder = Arc::new(Folder::new(&root, case, Some(file.as_bytes().to_vec())));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(build(&folder));
    let warnings = folder.warnings.lock().unwrap().clone();
    (result, warnings)
}
