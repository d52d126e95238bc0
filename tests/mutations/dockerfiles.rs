//! Dockerfiles.

use crate::block_on;
use crosskit_api::pb;
use crosskit_dockerfile::{
    Bridge, BridgeError, Environment, ErrorKind, Frontend, ImageQuery, Options, ResolvedImage, SourceWarning,
};
use crosskit_llb::{Digest, Graph};
use crosskit_platforms::Platform;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Words of Dockerfiles.
pub const WORDS: &[&str] = &[
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "USER ",
    "WORKDIR ",
    "EXPOSE ",
    "VOLUME ",
    "CMD ",
    "ENTRYPOINT ",
    "SHELL ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "STOPSIGNAL ",
    "MAINTAINER ",
    " AS ",
    "--from=",
    "--mount=type=",
    "--chmod=",
    "--chown=",
    "--link ",
    "--parents ",
    "--exclude=",
    "--checksum=sha256:",
    "--keep-git-dir=",
    "--unpack=",
    "--network=",
    "--security=",
    "--device=",
    "--platform=",
    "--interval=",
    "--retries=",
    "cache,target=",
    "secret,id=",
    "ssh,id=",
    "tmpfs,size=",
    "bind,from=",
    ",required",
    ",env=",
    ",sharing=",
    "CMD [\"",
    "NONE",
    "http://x/",
    "https://x/y.git#",
    "# check=",
    "<<-'E' <<F ",
    "\nE\n",
    "<<EOF\n",
    "\nEOF\n",
    "\\\n",
    "# syntax=",
    "# escape=`\n",
    "${",
    "}",
    "${A:-",
    "${A//",
    "${A%%",
    "${A##",
    "${A:?",
    "${A+",
    "$A",
    "[\"",
    "\"]",
    "scratch",
    "\n",
    "\"",
    "'",
    "=",
    ",",
    ":",
    "@sha256:",
    "../",
    "é",
];

/// Answers as if all names were of small images.
struct Outside(Vec<u8>);

fn failed(text: &str) -> BridgeError {
    Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(text))
}

impl Bridge for Outside {
    type Ref = ();

    async fn solve(&self, _: Graph, _: bool) -> Result<(), BridgeError> {
        Ok(())
    }

    async fn read_file(&self, _: &(), path: &str, _: Option<u64>) -> Result<Vec<u8>, BridgeError> {
        if path == "Dockerfile" { Ok(self.0.clone()) } else { Err(failed("not found")) }
    }

    async fn resolve_image(&self, query: ImageQuery) -> Result<ResolvedImage, BridgeError> {
        let config = br#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","A=b"],
            "OnBuild":["RUN echo $A"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let digest = Digest::of(query.reference.as_bytes()).to_string();
        Ok(ResolvedImage::Image { reference: query.reference, digest, config: config.to_vec() })
    }

    async fn source_time(&self, _: pb::SourceOp, _: &str) -> Result<Option<i64>, BridgeError> {
        Ok(None)
    }

    async fn inputs(&self) -> Result<BTreeMap<String, Graph>, BridgeError> {
        Ok(BTreeMap::new())
    }

    fn warn(&self, _: SourceWarning) {}
}

/// Builds a graph of a Dockerfile. A mistake in it is the user's, never ours.
pub fn run(bytes: &[u8]) {
    let _ = crosskit_dockerfile::detect_syntax(bytes);
    let environment = Environment {
        session: "session".into(),
        build_platform: Platform::linux("amd64"),
        unique: "unique".into(),
    };
    let raw = BTreeMap::from([("platform".to_string(), "linux/amd64,linux/arm64".to_string())]);
    let outside = Arc::new(Outside(bytes.to_vec()));
    let built = block_on(async {
        let options = Options::parse(raw, environment).expect("good options");
        let frontend = Frontend::read(outside, options).await?;
        let _ = frontend.forward();
        frontend.build().await.map(drop)
    });
    if let Err(error) = built {
        assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
    }
}
