//! Frontends of others: what they may do over the bridge.

#[path = "gateway/frontend.rs"]
mod frontend;

use crosskit_api::frontend::exec_message::Input;
use crosskit_api::frontend::{NewContainerRequest, ResizeMessage};
use crosskit_api::pb;
use crosskit_multiarch::{DaemonOptions, Scene, processes_of, until};
use frontend::{Frontend, conversation, image};
use std::time::Duration;

/// A program that nothing else runs, to find it among the machine's processes.
const SLEEP: &str = "exec sleep 3600.25";

fn root(result: &str) -> [(&str, &str); 1] {
    [("/", result)]
}

#[test]
fn processes_of_a_container_share_it_and_have_their_own_streams_and_ends() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
        let tmpfs = pb::Mount {
            dest: "/mem".into(),
            mount_type: pb::MountType::Tmpfs.into(),
            ..pb::Mount::default()
        };
        frontend.container("c", &root(&base), vec![tmpfs]).await.unwrap();
        let again = frontend.container("c", &root(&base), Vec::new()).await.unwrap_err();
        assert_eq!(again.message(), "Container c already exists");

        // The first one reads what it is sent, until a line says that it is over.
        let mut first = frontend.processes().await;
        first.start("one", "c", "echo 1 > /file; echo $$ > /mem/pid; echo up; cat; exit 3").await;
        first.hear("one", "up\n").await;

        let mut second = frontend.processes().await;
        second.start("two", "c", "cat /file; cat /mem/pid; echo oops >&2; pwd; echo $PATH").await;
        let said = second.end("two").await;
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!((said.out, said.err.as_str(), said.code), (format!("1\n1\n/\n{path}\n"), "oops\n", 0));

        assert_eq!(frontend.read("c", 0, "/file").await.unwrap(), b"1\n");
        let outside = frontend.read("c", 2, "/file").await.unwrap_err();
        assert_eq!(outside.message(), "mount index 2 is out of bounds (2 available)");

        first.write("one", "typed\n", false).await;
        assert_eq!(first.hear("one", "typed\n").await, "typed\n");
        first.write("one", "", true).await;
        let said = first.end("one").await;
        assert_eq!((said.code, said.error.as_str(), said.details.exit_code), (3, "exit code: 3", Some(3)));

        second.start("three", "none", "true").await;
        let nobody = second.refused().await;
        assert_eq!(nobody.message(), "container \"none\" previously released or not created");
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn terminals_change_their_size_and_signals_arrive() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
        frontend.container("c", &root(&base), Vec::new()).await.unwrap();
        let mut processes = frontend.processes().await;
        let script = "trap 'stty size; exit 7' WINCH; trap 'exit 8' TERM; echo $TERM; \
            while :; do /bin/sleep 0.05; done";
        processes.init("tty", "c", script, |init| init.tty = true).await;
        processes.hear("tty", "xterm\r\n").await;
        processes.send("tty", Input::Resize(ResizeMessage { rows: 33, cols: 77 })).await;
        let said = processes.end("tty").await;
        assert_eq!((said.out.as_str(), said.code), ("33 77\r\n", 7));

        frontend.container("d", &root(&base), Vec::new()).await.unwrap();
        processes.start("plain", "d", "trap 'exit 8' TERM; echo up; while :; do /bin/sleep 0.05; done").await;
        processes.hear("plain", "up\n").await;
        processes.signal("plain", "TERM").await;
        assert_eq!(processes.end("plain").await.code, 8);
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn what_still_runs_ends_with_the_container_and_with_the_build() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let sleeping = || processes_of(&daemon.root).iter().any(|(_, line)| line.contains("3600.25"));
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
        frontend.container("c", &root(&base), Vec::new()).await.unwrap();
        let mut processes = frontend.processes().await;
        processes.start("one", "c", &format!("echo up; {SLEEP}")).await;
        processes.hear("one", "up\n").await;
        let released = frontend.release("c").await.unwrap_err();
        assert!(released.message().contains("context canceled"), "{released}");
        let said = processes.end("one").await;
        assert!(said.error.contains("context canceled"), "{said:?}");
        assert_eq!(frontend.release("c").await.unwrap_err().message(), "container details for c not found");

        frontend.container("d", &root(&base), Vec::new()).await.unwrap();
        processes.start("two", "d", &format!("echo up; {SLEEP}")).await;
        processes.hear("two", "up\n").await;
        frontend.vanish().await;
        drop(processes);
    });
    until("the process to end with its build", Duration::from_secs(10), || (!sleeping()).then_some(()));
    daemon.stop();
}

#[test]
fn a_failed_step_can_be_looked_into() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let script = "echo half > /made; exit 4";
        let failed = frontend.solve(&image(&scene.base(), None, Some(script))).await.unwrap_err();
        let details = crosskit_api::errors::ErrorDetails::from_status(&failed);
        assert_eq!(details.exit_code, Some(4));
        let solve = details.solve.unwrap();
        let [input] = solve.input_i_ds.as_slice() else { panic!("{:?}", solve.input_i_ds) };
        let [mount] = solve.mount_i_ds.as_slice() else { panic!("{:?}", solve.mount_i_ds) };
        frontend.container("c", &[("/", mount), ("/before", input)], Vec::new()).await.unwrap();
        let mut processes = frontend.processes().await;
        processes.start("look", "c", "cat /made; test -e /before/made; echo $?").await;
        assert_eq!(processes.end("look").await.out, "half\n1\n");
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn a_container_gets_no_more_than_its_build_was_granted() {
    let scene = Scene::set();
    let allowed = "insecure-entitlements = [\"security.insecure\"]".to_string();
    let daemon = scene.daemon_with(DaemonOptions { config: allowed, ..DaemonOptions::default() });
    let caps = "grep CapEff /proc/self/status";
    for (granted, code, error) in
        [(&[][..], 255, "security.insecure is not allowed"), (&["security.insecure"][..], 0, "")]
    {
        conversation(async {
            let mut frontend = Frontend::begin(&daemon, granted).await;
            let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
            frontend.container("c", &root(&base), Vec::new()).await.unwrap();
            let mut processes = frontend.processes().await;
            processes.init("p", "c", caps, |init| init.set_security(pb::SecurityMode::Insecure)).await;
            let said = processes.end("p").await;
            assert_eq!((said.code, said.error.as_str()), (code, error));
            frontend.end().await;
        });
    }
    daemon.stop();
}

#[test]
fn a_container_of_another_platform_runs_emulated() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), Some("linux/riscv64"), None)).await.unwrap();
        let request = NewContainerRequest {
            container_id: "c".into(),
            mounts: vec![pb::Mount { dest: "/".into(), result_id: base, ..pb::Mount::default() }],
            platform: Some(pb::Platform {
                os: "linux".into(),
                architecture: "riscv64".into(),
                ..pb::Platform::default()
            }),
            hostname: "there".into(),
            ..NewContainerRequest::default()
        };
        frontend.container_as(request).await.unwrap();
        let mut processes = frontend.processes().await;
        processes.start("p", "c", "/bin/uname -m; /bin/hostname").await;
        assert_eq!(processes.end("p").await.out, "riscv64\nthere\n");
        frontend.end().await;
    });
    daemon.stop();
}
