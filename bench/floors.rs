//! What the plain tools take for the same work.

use crate::stopwatch::{median, time_script};
use crosskit_multiarch::Scene;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How many containers one measurement of a runtime starts.
const CONTAINERS: usize = 30;

/// What the fastest runtime that works here takes to `run` a program that does nothing, with the
/// runtime's name.
pub fn runtime(scene: &Scene) -> (String, f64) {
    let mut found: Vec<(String, f64)> = Vec::new();
    for name in ["crun", "runc"] {
        let program = scene.parts.on_machine(name);
        let bundle = bundle(scene, &program);
        // In a mount namespace without the unified hierarchy: some crun refuse a hybrid host.
        let script = |count: usize| {
            format!(
                "exec unshare -m bash -euc 'umount -l /sys/fs/cgroup/unified 2>/dev/null || true
                 for i in $(seq {count}); do {program} --root {state} run -b {bundle} bench-{name}-$i; done'",
                program = program.display(),
                state = scene.path("runtime-state").display(),
                bundle = bundle.display(),
            )
        };
        let works =
            Command::new("bash").args(["-c", &script(1)]).output().is_ok_and(|out| out.status.success());
        if works {
            let all = median(3, || time_script(&script(CONTAINERS)));
            let one = median(3, || time_script(&script(1)));
            found.push((format!("{name} run"), (all - one) / (CONTAINERS - 1) as f64));
        }
    }
    found.sort_by(|left, right| left.1.total_cmp(&right.1));
    found.into_iter().next().expect("crun or runc works on this machine")
}

fn bundle(scene: &Scene, runtime: &Path) -> PathBuf {
    let bundle = scene.path("bundle");
    let root = bundle.join("rootfs");
    if !root.exists() {
        for folder in ["bin", "proc", "sys", "dev", "tmp"] {
            std::fs::create_dir_all(root.join(folder)).expect("create a root folder");
        }
        std::fs::copy(scene.parts.busybox(native()), root.join("bin/true")).expect("copy busybox");
    }
    let config = bundle.join("config.json");
    let _ = std::fs::remove_file(&config);
    time_script(&format!("cd {} && {} spec", bundle.display(), runtime.display()));
    let text = std::fs::read(&config).expect("a runtime writes a config");
    let mut spec: Value = serde_json::from_slice(&text).expect("JSON");
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["/bin/true"]);
    // The mount namespace of a step has no network of its own here, as the daemon's default.
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|one| one["type"] != "network" && one["type"] != "cgroup");
    }
    std::fs::write(&config, spec.to_string()).expect("write the config");
    bundle
}

/// This machine's architecture by its OCI name.
pub fn native() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Milliseconds of `cp -a FROM TO`, each turn to a place of its own.
pub fn copy(from: &Path, to: &Path, turns: usize) -> f64 {
    let mut turn = 0;
    median(turns, || {
        turn += 1;
        time_script(&format!("cp -a {} {}-{turn}", from.display(), to.display()))
    })
}
