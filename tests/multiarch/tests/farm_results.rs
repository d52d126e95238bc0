//! What comes out of a farm: one index or none, outputs as from one machine.

#[path = "farm/machines.rs"]
mod machines;

use crosskit_multiarch::{Images, Scene, Tree};
use machines::{LONG, UNTIL_TOLD, endpoint, tell_to_go_on, worker};
use serde_json::Value;

const PLATFORMS: [&str; 3] = ["linux/riscv64", "linux/amd64", "linux/arm64"];

fn entries(index: &[u8]) -> Vec<String> {
    let index: Value = serde_json::from_slice(index).expect("an index");
    index["manifests"].as_array().expect("its entries").iter().map(Images::platform_of).collect()
}

#[test]
fn a_tag_appears_when_all_is_complete_and_a_killed_endpoint_leaves_the_old_one() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let arm = worker(&scene, "arm", "linux/arm64", "10.77.0.3");
    let workers = [("riscv-1", &riscv), ("arm-1", &arm)];
    let daemon = endpoint(&scene, "", &workers);
    // Long at one worker only.
    let dockerfile = |text: &str| {
        format!(
            "FROM BASE AS base-amd64\nFROM BASE AS base-arm64\nFROM BASE AS base-riscv64\n{UNTIL_TOLD}\
             FROM base-$TARGETARCH\nRUN echo {text}-$(/bin/uname -m)\n"
        )
    };
    let output = format!("type=image,name={},push=true", scene.registry.reference("whole:latest"));
    let tag = || scene.registry.manifest("whole", "latest");

    let context = scene.context("one", &[("Dockerfile", &dockerfile("one"))]);
    let mut building = daemon.build(&context).platforms(&PLATFORMS).output(&output).start();
    building.wait_for(" one-x86_64", LONG);
    building.wait_for(" one-aarch64", LONG);
    building.wait_for(" it-runs", LONG);
    assert_eq!(tag(), None, "nothing is published before all is there");
    tell_to_go_on(&scene, "riscv");
    building.finish(LONG).ok();
    let first = tag().expect("the tag is there");
    assert_eq!(entries(&first), PLATFORMS, "in the order that was asked for");

    let context = scene.context("two", &[("Dockerfile", &dockerfile("two"))]);
    let mut building =
        daemon.build(&context).platforms(&PLATFORMS).argument("--no-cache").output(&output).start();
    building.wait_for(" two-x86_64", LONG);
    building.wait_for(" it-runs", LONG);
    daemon.kill();
    assert!(!building.wait(LONG).success());
    assert_eq!(tag().as_ref(), Some(&first), "the old index, whole");
    let daemon = endpoint(&scene, "", &workers);
    // What took long is known from the first build.
    daemon.build(&context).platforms(&PLATFORMS).output(&output).run().ok();
    let second = tag().expect("the tag is there");
    assert_eq!(entries(&second), PLATFORMS);
    assert_ne!(second, first);
    for daemon in [daemon, riscv, arm] {
        daemon.stop();
    }
}

#[test]
fn folders_are_split_or_joined_and_conflicts_are_said() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let arm = worker(&scene, "arm", "linux/arm64", "10.77.0.3");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv), ("arm-1", &arm)]);
    let dockerfile = "FROM BASE AS made\nARG TARGETARCH\n\
        RUN /bin/mkdir /out && echo same > /out/same && /bin/uname -m > /out/$TARGETARCH\n\
        RUN if [ $TARGETARCH != amd64 ]; then /bin/uname -m > /out/machine; fi\n\
        FROM scratch AS joined\nARG TARGETARCH\nCOPY --from=made /out/$TARGETARCH /\n\
        FROM scratch\nCOPY --from=made /out /\n";
    let context = scene.context("folders", &[("Dockerfile", dockerfile)]);
    let out = scene.path("out");
    let build = |target: &str| {
        let build = daemon.build(&context).platforms(&PLATFORMS);
        if target.is_empty() { build } else { build.opt("target", target) }
    };
    build("").into(&out).run().ok();
    for (folder, machine) in [("linux_riscv64", "riscv64"), ("linux_arm64", "aarch64")] {
        let tree = Tree::of_folder(&out.join(folder));
        assert_eq!((tree.text("machine").trim(), tree.text("same").trim()), (machine, "same"));
    }
    let joined = scene.path("joined");
    let output = format!("type=local,platform-split=false,dest={}", joined.display());
    build("joined").output(&output).run().ok();
    let tree = Tree::of_folder(&joined);
    let texts = ["amd64", "arm64", "riscv64"].map(|file| tree.text(file));
    assert_eq!(texts, ["x86_64\n", "aarch64\n", "riscv64\n"]);
    let ran = build("").output(&output).run().fails();
    ran.says("cannot overwrite ")
        .says(" from linux/riscv64 with linux/")
        .says("when split option is disabled");
    for daemon in [daemon, riscv, arm] {
        daemon.stop();
    }
}

#[test]
fn annotations_of_each_platform_are_at_its_own_manifest() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let context = scene.context("notes", &[("Dockerfile", "FROM BASE\nRUN echo x > /x\n")]);
    let archive = scene.path("notes.tar");
    let output = format!(
        "type=oci,dest={},annotation.all=1,annotation[linux/riscv64].own=2,annotation-index.top=3,\
         annotation-manifest-descriptor[linux/amd64].entry=4",
        archive.display()
    );
    let build = daemon.build(&context).platforms(&["linux/amd64", "linux/riscv64"]).output(&output);
    let (_, metadata) = build.run_for_metadata();
    assert!(metadata["containerimage.descriptor"]["digest"].is_string(), "{metadata}");
    let images = Images::archive(&archive);
    let index = images.json(&images.index_json()["manifests"][0]);
    assert_eq!(index["annotations"]["top"], "3");
    let [amd, riscv_entry] = ["linux/amd64", "linux/riscv64"].map(|platform| Images::entry(&index, platform));
    assert_eq!(
        (&amd["annotations"]["entry"], &riscv_entry["annotations"]["entry"]),
        (&"4".into(), &Value::Null)
    );
    let [amd, riscv_manifest] = [amd, riscv_entry].map(|entry| images.json(entry)["annotations"].clone());
    assert_eq!((&amd["all"], &amd["own"]), (&"1".into(), &Value::Null));
    assert_eq!((&riscv_manifest["all"], &riscv_manifest["own"]), (&"1".into(), &"2".into()));
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}
