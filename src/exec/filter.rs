//! The seccomp filter, made once.
//!
//! A runtime makes the filter of the profile anew for each container, which costs crun more (11 ms) than everything else
//! that it does (6 ms). crun takes a ready filter as an annotation; and the filter that it makes for a container that is
//! created but not started lies in its state folder. So one container is created for nothing else.

use std::{path::Path, process::Stdio};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    runtime::{ProbeBundle, Runtime},
    seccomp,
};

/// Size of one instruction of a filter (struct sock_filter), in bytes.
const INSTRUCTION: usize = 8;

/// The filter of the default profile as crun takes it, proven by running a container with it. None where that is not to
/// be had: then each step brings the profile.
pub(crate) fn make(runtime: &Runtime, run_root: &Path) -> Option<String> {
    if !runtime.is_crun() || !seccomp::is_available() {
        return None;
    }
    let bundle = ProbeBundle::make(run_root, &runtime.ledger, Some(seccomp::profile()), None).ok()?;
    let quiet = |mut command: std::process::Command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let mut create = runtime.command(&bundle.log());
    create.args(["create", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    let created = quiet(create);
    let filter = std::fs::read(runtime.state.join(&bundle.id).join("seccomp.bpf"));
    let mut delete = runtime.command(&bundle.log());
    delete.args(["delete", "--force", &bundle.id]);
    quiet(delete);
    let filter =
        filter.ok().filter(|bytes| created && !bytes.is_empty() && bytes.len() % INSTRUCTION == 0)?;
    let encoded = STANDARD.encode(filter);
    match runtime.probe(run_root, None, Some(&encoded)) {
        Ok(()) => Some(encoded),
        Err(error) => {
            tracing::debug!(%error, "no ready seccomp filter: each step makes its own");
            None
        }
    }
}
