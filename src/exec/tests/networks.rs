//! Containers in network namespaces that a plugin has furnished, with each runtime.

mod lab;

use std::{os::unix::fs::PermissionsExt, path::Path};

use crosskit_exec::{
    ExecConfig, Network, Process, Ways,
    networks::{NetworkMode, NetworkOptions},
};
use crosskit_platforms::Platform;
use lab::{Collected, Lab, RUNTIMES, native_rootfs, parts, process, rootfs, sh};
use tokio_util::sync::CancellationToken;

/// A plugin that is content with what there is.
const PLUGIN: &str = "#!/bin/sh\necho '{}'\n";

fn lab(folder: &Path, runtime: &str, ways: Ways) -> Lab {
    let plugin = folder.join("nothing");
    std::fs::write(&plugin, PLUGIN).expect("written");
    std::fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755)).expect("set");
    std::fs::write(folder.join("net.json"), r#"{"name": "test", "type": "nothing"}"#).expect("written");
    let network = NetworkOptions {
        mode: NetworkMode::Cni,
        config: folder.join("net.json"),
        plugins: Some(folder.to_owned()),
        ..NetworkOptions::default()
    };
    let emulator_folders = vec![parts().join("qemu")];
    let runtime = Some(runtime.into());
    Lab::with(ExecConfig { runtime, network, emulator_folders, ways, ..ExecConfig::default() })
}

fn namespace() -> String {
    std::fs::read_link("/proc/self/ns/net").expect("there").display().to_string()
}

const SHOW: &str = "ip -o link; readlink /proc/self/ns/net";

#[tokio::test]
async fn steps_have_the_namespace_and_others_do_not() {
    for runtime in RUNTIMES {
        let folder = tempfile::tempdir().expect("a folder");
        let (lab, rootfs) = (lab(folder.path(), runtime, Ways::default()), native_rootfs());
        let out = lab.sh(&rootfs, SHOW).await;
        assert!(
            out.starts_with("1: lo: <LOOPBACK,UP,LOWER_UP>") && !out.contains("\n2: "),
            "{runtime}: {out}"
        );
        // It is lent again.
        assert_eq!(lab.sh(&rootfs, SHOW).await, out);
        let host = Process { network: Network::Host, ..sh(&rootfs, SHOW) };
        assert!(lab.run(host).await.out.ends_with(&format!("{}\n", namespace())));
        let none = lab.run(Process { network: Network::None, ..sh(&rootfs, SHOW) }).await.out;
        assert!(none.starts_with("1: lo:") && none.lines().last() != out.lines().last(), "{none}");
        lab.executor.shutdown().await;
        lab.assert_clean();
        assert_eq!(std::fs::read_dir(lab.root.path().join("net")).expect("there").count(), 0);
    }
}

#[tokio::test]
async fn a_second_process_is_in_the_same_namespace() {
    let native = crosskit_platforms::native();
    for (runtime, platform) in
        RUNTIMES.into_iter().flat_map(|r| [(r, native.clone()), (r, Platform::linux("arm64"))])
    {
        let folder = tempfile::tempdir().expect("a folder");
        let (lab, rootfs) = (lab(folder.path(), runtime, Ways::PrivateOnly), rootfs(&platform.architecture));
        let first = sh(&rootfs, "readlink /proc/self/ns/net > /first; sleep 600");
        let first = Process { platform: Some(platform), ..first };
        let cancel = CancellationToken::new();
        let container = lab
            .executor
            .start(first, crosskit_exec::Stdio::default(), cancel.clone())
            .await
            .expect("started");
        let second = Collected::default();
        let io = crosskit_exec::Stdio { stdout: second.output(), ..Default::default() };
        let show = process(&rootfs, &["/bin/readlink", "/proc/self/ns/net"]);
        container.access().exec(show, io, CancellationToken::new()).await.expect("runs");
        let file = rootfs.path().join("first");
        lab::until("the first has told", || std::fs::metadata(&file).is_ok_and(|about| about.len() > 0))
            .await;
        assert_eq!(second.text(), std::fs::read_to_string(&file).expect("there"));
        assert_ne!(second.text().trim(), namespace());
        cancel.cancel();
        assert!(container.wait().await.is_err());
        lab.executor.shutdown().await;
    }
}

#[tokio::test]
async fn emulated_steps_have_it_too() {
    for runtime in RUNTIMES {
        let folder = tempfile::tempdir().expect("a folder");
        let (lab, rootfs) = (lab(folder.path(), runtime, Ways::PrivateOnly), rootfs("arm64"));
        let step = Process {
            platform: Some(Platform::linux("arm64")),
            ..sh(&rootfs, "uname -m; readlink /proc/self/ns/net")
        };
        let said = lab.run(step).await;
        assert_eq!(said.exit.code, 0, "{runtime}: {said:?}");
        assert!(said.out.starts_with("aarch64\n") && !said.out.contains(&namespace()), "{runtime}: {said:?}");
        lab.executor.shutdown().await;
    }
}
