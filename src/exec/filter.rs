//! The seccomp filter, made once.
//!
//! A runtime makes the filter of the profile anew for each container, which costs crun more (11 ms) than everything else
//! that it does (6 ms). crun takes a ready filter as an annotation; and the filter that it makes for a container that is
//! created but not started lies in its state folder. So one container is created for nothing else.

use std::{path::Path, process::Stdio};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    marks::IpcMark,
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
    let bundle =
        ProbeBundle::make(run_root, &runtime.ledger, runtime.rights, Some(seccomp::profile()), None).ok()?;
    let quiet = |mut command: std::process::Command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let mark = runtime.rights.shares_processes.then(IpcMark::new).transpose().ok()?;
    let mut create = runtime.command(&bundle.log());
    if let Some(mark) = &mark {
        mark.put_on(&mut create);
    }
    create.arg("create").args(runtime.keyring()).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let created = quiet(create);
    let filter = std::fs::read(runtime.state.join(&bundle.id).join("seccomp.bpf"));
    let mut delete = runtime.command(&bundle.log());
    delete.args(["delete", "--force", &bundle.id]);
    quiet(delete);
    if let Some(mark) = mark {
        // With no process ids of its own nor a cgroup to know it by, it may have been left waiting.
        mark.kill_all_but(None);
    }
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
