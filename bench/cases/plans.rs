//! What the Dockerfile frontend does by itself: parsing, planning and checking, without a daemon.

use crate::rows::{Row, Target, Unit};
use crate::stopwatch::{median, milliseconds};
use crosskit_api::pb;
use crosskit_dockerfile::{
    Bridge, BridgeError, Environment, Frontend, FrontendResult, ImageQuery, Options, ResolvedImage,
    SourceWarning,
};
use crosskit_llb::{Digest, Graph};
use crosskit_multiarch::{PLATFORMS, Scene};
use crosskit_platforms::Platform;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

/// 500 stages of ten instructions for 8 platforms, half of them, and the checks of a long file. The programs that are
/// measured elsewhere play no part, so a peer's column repeats ours.
pub fn plans(_: &Scene) -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("start threads");
    let time = |dockerfile: &str, options: &[(&str, &str)]| {
        median(9, || {
            let start = Instant::now();
            let made = runtime.block_on(plan(dockerfile, options));
            let took = milliseconds(start.elapsed());
            drop(made);
            took
        })
    };
    let platforms = PLATFORMS.join(",");
    let options = [("platform", platforms.as_str())];
    let [half, whole] = [250, 500].map(|stages| time(&stages_of_ten(stages), &options));
    let checks = time(&stages_of_ten(18), &[("requestid", "frontend.lint")]);
    let kind = Unit::Milliseconds;
    vec![
        Row::new(
            "500 stages, 5 000 instructions, 8 platforms: parsed and planned",
            kind,
            whole,
            Target::AtMost(30.0),
        ),
        Row::new("the same beside 250 stages: grows linearly", kind, whole, Target::TimesFloor(2.2))
            .beside("250 stages", half),
        Row::new("checks of 180 instructions", kind, checks, Target::AtMost(10.0)),
    ]
}

/// Each stage has two files of the one before, so that none can be left out.
fn stages_of_ten(stages: usize) -> String {
    let mut text = String::new();
    for stage in 0..stages {
        let from = stage.checked_sub(1).map_or(String::new(), |before| format!("--from=s{before} "));
        write!(
            text,
            "FROM debian:forky AS s{stage}\nARG TARGETARCH\nENV NAME=s{stage} HOME_OF=/srv/$TARGETARCH\nWORKDIR $HOME_OF\n\
             COPY {from}one /one\nCOPY --chown=1:1 {from}two /two\nRUN --mount=type=cache,target=/var/cache/s{stage} make $NAME\n\
             LABEL stage={stage}\nUSER 1\nCMD [\"/one\"]\n"
        )
        .expect("a string takes any text");
    }
    text
}

/// What was made, for whoever takes it to give it back later.
async fn plan(dockerfile: &str, options: &[(&str, &str)]) -> Option<FrontendResult> {
    let environment = Environment {
        session: "bench".into(),
        build_platform: Platform::linux("amd64"),
        unique: "bench".into(),
    };
    let own = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
    let options = Options::parse(options.iter().map(own).collect::<BTreeMap<_, _>>(), environment)
        .expect("options that are right");
    let bridge = Arc::new(Memory(dockerfile.as_bytes().to_vec()));
    let frontend = Frontend::read(bridge, options).await.expect("read the Dockerfile");
    if frontend.subrequest().await.expect("answer").is_some() {
        return None;
    }
    let made = frontend.build().await.expect("plan the build");
    assert!(made.platforms.iter().all(|platform| platform.graph.len() > 1), "a plan is empty");
    Some(made)
}

/// A context that holds a Dockerfile, and images that all look the same.
struct Memory(Vec<u8>);

impl Bridge for Memory {
    type Ref = ();

    async fn solve(&self, _: Graph, _: bool) -> Result<(), BridgeError> {
        Ok(())
    }

    async fn read_file(&self, _: &(), path: &str, _: Option<u64>) -> Result<Vec<u8>, BridgeError> {
        match path {
            "Dockerfile" => Ok(self.0.clone()),
            _ => Err(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("not found"))),
        }
    }

    async fn resolve_image(&self, query: ImageQuery) -> Result<ResolvedImage, BridgeError> {
        let platform = query.platform.unwrap_or_else(|| Platform::linux("amd64"));
        let digest = Digest::of(query.reference.as_bytes()).to_string();
        let config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "variant": platform.variant,
            "config": {"Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        });
        Ok(ResolvedImage::Image {
            reference: query.reference,
            digest,
            config: config.to_string().into_bytes(),
        })
    }

    async fn source_time(&self, _: pb::SourceOp, _: &str) -> Result<Option<i64>, BridgeError> {
        Ok(None)
    }

    async fn inputs(&self) -> Result<BTreeMap<String, Graph>, BridgeError> {
        Ok(BTreeMap::new())
    }

    fn warn(&self, _: SourceWarning) {}
}
