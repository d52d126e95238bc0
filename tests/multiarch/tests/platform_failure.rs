//! One platform fails while others do not.

use crosskit_multiarch::{Daemon, DaemonOptions, Images, Scene, Tree};
use serde_json::Value;

/// Fails for one platform, and for another has no base image.
const ONE_FAILS: &str = "FROM BASE\nARG TARGETARCH\n\
    RUN echo one > /first\n\
    RUN if [ $TARGETARCH = riscv64 ]; then echo told; exit 3; fi; echo it-finishes-$TARGETARCH > /second\n";

fn daemon(scene: &Scene, farm: &str) -> Daemon {
    scene.daemon_with(DaemonOptions { config: format!("[farm]\n{farm}"), ..Default::default() })
}

#[test]
fn the_first_failure_ends_a_build_unless_told_otherwise() {
    let scene = Scene::set();
    let daemon = daemon(&scene, "on-platform-failure = \"fail\"\n");
    let context = scene.context("fails", &[("Dockerfile", ONE_FAILS)]);
    let ran = daemon.build(&context).platforms(&["linux/amd64", "linux/riscv64"]).run().fails();
    ran.says("did not complete successfully: exit code: 3").never_says("platforms failed");
    daemon.stop();
}

#[test]
fn the_others_finish_all_failures_are_named_and_nothing_is_published() {
    let scene = Scene::set();
    let daemon = daemon(&scene, "on-platform-failure = \"keep-going\"\n");
    let context = scene.context("fails", &[("Dockerfile", ONE_FAILS)]);
    let image = scene.registry.reference("partial:latest");
    let output = format!("type=image,name={image},push=true");
    let platforms = ["linux/riscv64", "linux/amd64", "linux/arm64", "linux/mips64le"];
    let ran = daemon.build(&context).platforms(&platforms).output(&output).run().fails();
    let ran = ran.says("2 of 4 platforms failed: ").says("linux/riscv64: process").says("exit code: 3");
    let ran = ran.says("linux/mips64le: ").says("finished: linux/amd64, linux/arm64; nothing is published");
    // The place in the Dockerfile is shown as ever.
    ran.says("Dockerfile:4");
    assert_eq!(scene.registry.manifest("partial", "latest"), None);
    // What the others did is there.
    let ran = daemon.build(&context).platforms(&["linux/amd64", "linux/arm64"]).run().ok();
    assert_eq!(ran.said().matches("CACHED").count(), 4, "{ran}");
    // A file that is wrong for everybody is one error.
    let wrong = scene.context("wrong", &[("Dockerfile", "FROM BASE\nRUNN true\n")]);
    let ran = daemon.build(&wrong).platforms(&["linux/amd64", "linux/arm64"]).run().fails();
    ran.says("unknown instruction: RUNN").never_says("platforms failed");
    daemon.stop();
}

#[test]
fn a_part_is_published_if_that_is_allowed_and_the_client_is_told() {
    let scene = Scene::set();
    let daemon = daemon(&scene, "on-platform-failure = \"keep-going\"\nallow-partial = true\n");
    let context = scene.context("fails", &[("Dockerfile", ONE_FAILS)]);
    let archive = scene.path("part.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let platforms = ["linux/riscv64", "linux/arm64", "linux/mips64le", "linux/amd64"];
    let build = || daemon.build(&context).platforms(&platforms);
    let (ran, metadata) = build().output(&output).run_for_metadata();
    let ran = ran
        .ok()
        .says("[partial result] linux/arm64, linux/amd64 without ")
        .says("WARN: linux/riscv64 failed");
    ran.says("WARN: linux/mips64le failed and is no part of the result: ");
    let told = &metadata["dev.crosskit.platforms.failed"];
    assert!(told["linux/riscv64"].as_str().is_some_and(|why| why.contains("exit code: 3")), "{metadata}");
    assert!(told["linux/mips64le"].is_string() && told["linux/amd64"] == Value::Null, "{metadata}");
    let images = Images::archive(&archive);
    let index = images.json(&images.index_json()["manifests"][0]);
    let entries = index["manifests"].as_array().expect("an index");
    let entries: Vec<_> = entries.iter().map(Images::platform_of).collect();
    assert_eq!(entries, ["linux/arm64", "linux/amd64"]);
    let out = scene.path("out");
    build().into(&out).run().ok();
    assert_eq!(Tree::of_folder(&out.join("linux_arm64")).text("second"), "it-finishes-arm64\n");
    assert!(!out.join("linux_riscv64").exists());
    // Nothing is no part.
    let ran =
        daemon.build(&context).platforms(&["linux/riscv64", "linux/mips64le"]).output(&output).run().fails();
    ran.says("all 2 platforms failed: ");
    daemon.stop();
}
