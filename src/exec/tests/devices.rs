//! Devices change the container of a step, under crun and runc alike.

mod lab;

use crosskit_exec::devices::{Devices, Edits, Wanted};
use lab::{Lab, RUNTIMES, native_rootfs, sh};
use std::path::Path;

fn edits(folder: &Path, spec: &str) -> Edits {
    std::fs::write(folder.join("acme.yaml"), spec).expect("written");
    let registry = Devices::new(vec![folder.to_owned()], Vec::new()).read().expect("read");
    assert_eq!(registry.problems(), Vec::<String>::new());
    let all = Wanted { name: "acme.example/card=*".to_owned(), optional: false };
    registry.edits(&registry.find(&[all]).expect("found")).expect("known")
}

#[tokio::test]
async fn a_step_gets_variables_nodes_mounts_groups_and_hooks() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("library"), "of the driver").expect("written");
        std::fs::create_dir(rootfs.path().join("lib")).expect("made");
        let here = folder.path().display();
        let spec = format!(
            r#"
cdiVersion: "0.7.0"
kind: acme.example/card
devices:
- name: a
  containerEdits:
    env: ["HOME=/card", "CARD=a"]
    deviceNodes:
    - {{path: /dev/card, hostPath: /dev/zero, permissions: r, fileMode: 420}}
    mounts:
    - {{hostPath: {here}/library, containerPath: /lib/library, options: [ro, rbind]}}
    hooks:
    - {{hookName: createRuntime, path: /bin/sh, args: [sh, -c, "echo ran > {here}/hook"]}}
    additionalGids: [4242]
"#
        );
        let mut step = sh(
            &rootfs,
            "echo $HOME $CARD; cat /lib/library; echo; head -c 3 /dev/card | wc -c; stat -c %a:%t:%T /dev/card; id -G",
        );
        step.env.push("HOME=/root".to_owned());
        step.devices = edits(folder.path(), &spec);
        let said = lab.run(step).await;
        assert_eq!(said.exit.code, 0, "{runtime}: {said:?}");
        let lines: Vec<&str> = said.out.lines().collect();
        assert_eq!(lines[..4], ["/card a", "of the driver", "3", "644:1:5"], "{runtime}: {said:?}");
        assert!(lines[4].split(' ').any(|group| group == "4242"), "{runtime}: {said:?}");
        assert_eq!(std::fs::read_to_string(folder.path().join("hook")).expect("the hook ran"), "ran\n");
        lab.assert_clean();
    }
}

#[tokio::test]
async fn hooks_get_the_containers_state_and_need_not_read_it() {
    for runtime in RUNTIMES {
        const HEAD: &str = "cdiVersion: 0.6.0\nkind: acme.example/card\ndevices:\n- name: a\n  containerEdits:\n    hooks:\n";
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().display();
        let hook = |when: &str, script: &str| {
            format!(
                "    - {{hookName: {when}, path: /bin/sh, args: [sh, -c, \"{script}\", zero, \"a b\"], env: [WORD=w]}}\n"
            )
        };
        let outside = ["createRuntime", "createContainer", "poststart", "poststop"];
        let mut hooks = String::new();
        for when in outside {
            hooks +=
                &hook(when, &format!("cat > {here}/{when}; echo \\\"$0,$1,$WORD\\\" > {here}/{when}.called"));
        }
        let spec = format!("{HEAD}{hooks}");
        let mut step = sh(&rootfs, "true");
        step.devices = edits(folder.path(), &spec);
        let said = lab.run(step).await;
        assert_eq!(said.exit.code, 0, "{runtime}: {said:?}");
        for when in outside {
            let read =
                |name: String| std::fs::read_to_string(folder.path().join(name)).expect("the hook ran");
            let state: serde_json::Value = serde_json::from_str(&read(when.to_owned())).expect("JSON");
            assert!(state["id"].is_string() && state["bundle"].is_string(), "{runtime} {when}: {state}");
            assert_eq!(read(format!("{when}.called")), "zero,a b,w\n", "{runtime} {when}");
        }
        // Ended before the runtime writes, now and then: so many, and so many at once, that it happens.
        let ignores = "    - {hookName: createRuntime, path: /bin/true}\n".repeat(40);
        let spec = format!("{HEAD}{ignores}");
        let edits = edits(folder.path(), &spec);
        let steps = (0..8).map(|_| {
            let mut step = sh(&rootfs, "true");
            step.devices = edits.clone();
            lab.run(step)
        });
        for said in futures::future::join_all(steps).await {
            assert_eq!(said.exit.code, 0, "{runtime}: {said:?}");
        }
        lab.assert_clean();
    }
}

#[tokio::test]
async fn a_node_that_the_machine_lacks_is_named() {
    let (lab, rootfs) = (Lab::new(RUNTIMES[0]), native_rootfs());
    let folder = tempfile::tempdir().expect("a folder");
    let spec = "cdiVersion: 0.6.0\nkind: acme.example/card\ndevices:\n\
        - {name: a, containerEdits: {deviceNodes: [{path: /dev/acme-none}]}}\n";
    let mut step = sh(&rootfs, "true");
    step.devices = edits(folder.path(), spec);
    let refused = lab.try_run(step).await.expect_err("no such device").to_string();
    assert_eq!(
        refused,
        "CDI device injection failed: failed to stat CDI host device \"/dev/acme-none\": \
         No such file or directory (os error 2)"
    );
    lab.assert_clean();
}
