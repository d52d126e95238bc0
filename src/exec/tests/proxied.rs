//! Containers behind a proxy, with each runtime, native and emulated: the proxy is all there is.

mod lab;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    sync::Arc,
};

use crosskit_exec::{ExecConfig, ExtraHost, Network, Process, Stdio, Ways};
use crosskit_platforms::{Platform, native};
use crosskit_proxynet::{Record, Rules};
use lab::{Collected, Lab, RUNTIMES, parts, process, rootfs, sh};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A server on this machine's loopback interface that says hello to everybody; gives its port.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n");
        }
    });
    port
}

fn rules() -> (Rules, Arc<Record>) {
    let record = Arc::new(Record::default());
    (Rules { judge: None, record: record.clone() }, record)
}

fn lab(runtime: &str) -> Lab {
    let emulator_folders = vec![parts().join("qemu")];
    let runtime = Some(runtime.into());
    Lab::with(ExecConfig { runtime, emulator_folders, ways: Ways::PrivateOnly, ..ExecConfig::default() })
}

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

fn with_bundle(architecture: &str) -> TempDir {
    let root = rootfs(architecture);
    let path = root.path().join(BUNDLE);
    fs::create_dir_all(path.parent().expect("not the root")).expect("made");
    fs::write(path, "theirs\n").expect("written");
    root
}

fn is_empty(lab: &Lab) {
    lab.assert_clean();
    let namespaces = fs::read_dir(lab.root.path().join("net")).into_iter().flatten();
    assert_eq!(namespaces.count(), 0);
}

#[tokio::test]
async fn the_proxy_is_the_only_way_out() {
    let port = server();
    // What a step may not reach by itself it may reach by name through the proxy, from this machine's network.
    let script = format!(
        "ip -o link | wc -l; env | grep -ci '^http.*_proxy=http://127.0.0.1:'; env | grep ^no_proxy; \
         env | grep -c ^HTTP_PROXY=; unset no_proxy NO_PROXY; wget -q -O- http://files.test:{port}/a; \
         unset http_proxy HTTP_PROXY; wget -q -O- http://127.0.0.1:{port}/ 2>&1 | head -1; \
         grep -c 'buildkit proxy CA begin' /{BUNDLE}"
    );
    for runtime in RUNTIMES {
        for platform in [native(), Platform::linux("arm64")] {
            let (lab, root) = (lab(runtime), with_bundle(&platform.architecture));
            let before = fs::metadata(root.path().join(BUNDLE)).expect("there");
            for network in [Network::Host, Network::Sandbox] {
                let (rules, record) = rules();
                let mut step = Process { network, proxy: Some(rules), ..sh(&root, &script) };
                step.platform = Some(platform.clone());
                step.env.push("HTTP_PROXY=http://elsewhere".to_owned());
                step.extra_hosts = vec![ExtraHost { host: "files.test".into(), ip: [127, 0, 0, 1].into() }];
                let said = lab.run(step).await;
                let lines: Vec<&str> = said.out.lines().collect();
                let shown = ["1", "4", "no_proxy=127.0.0.1,localhost,::1", "1", "hello"];
                assert_eq!(lines[..5], shown, "{runtime}: {said:?}");
                assert!(lines[5].contains("can't connect"), "{runtime}: {said:?}");
                assert_eq!(lines[6..], ["1"], "{runtime}: {said:?}");
                let told = format!("proxy network requests:\n- GET http://files.test:{port}/a -> 200\n");
                assert_eq!(record.summary(), Some(told));
                let after = fs::metadata(root.path().join(BUNDLE)).expect("there");
                assert_eq!(fs::read_to_string(root.path().join(BUNDLE)).expect("text"), "theirs\n");
                let facts = |m: &fs::Metadata| (m.ino(), m.mtime(), m.mtime_nsec());
                assert_eq!(facts(&after), facts(&before));
                is_empty(&lab);
            }
        }
    }
}

#[tokio::test]
async fn a_root_that_is_read_only_stays_as_it_is() {
    for runtime in RUNTIMES {
        let (lab, root) = (lab(runtime), with_bundle(&native().architecture));
        let script = format!("cat /{BUNDLE}");
        let step = Process { proxy: Some(rules().0), readonly_rootfs: true, ..sh(&root, &script) };
        let said = lab.run(step).await;
        assert!(said.out.starts_with("theirs\n\n# buildkit proxy CA begin\n-----BEGIN CERT"), "{said:?}");
        assert_eq!(fs::read_to_string(root.path().join(BUNDLE)).expect("text"), "theirs\n");
        is_empty(&lab);
    }
}

#[tokio::test]
async fn without_a_network_there_is_no_proxy() {
    let (lab, root) = (lab(RUNTIMES[0]), with_bundle(&native().architecture));
    let script = format!("env | grep -ic _proxy; grep -c begin /{BUNDLE}; true");
    let step = Process { network: Network::None, proxy: Some(rules().0), ..sh(&root, &script) };
    assert_eq!(lab.run(step).await.out, "0\n0\n");
    is_empty(&lab);
}

#[tokio::test]
async fn a_second_process_is_behind_it_too_and_it_ends_with_the_first() {
    let port = server();
    for runtime in RUNTIMES {
        let (lab, root) = (lab(runtime), with_bundle(&native().architecture));
        let (rules, record) = rules();
        let first = Process { network: Network::Host, proxy: Some(rules), ..sh(&root, "sleep 600") };
        let cancel = CancellationToken::new();
        let container = lab.executor.start(first, Stdio::default(), cancel.clone()).await.expect("started");
        let out = Collected::default();
        let io = Stdio { stdout: out.output(), ..Stdio::default() };
        let script =
            format!("unset no_proxy NO_PROXY; wget -q -O- http://127.0.0.1:{port}/; ip -o link | wc -l");
        let mut second = process(&root, &["/bin/sh", "-c", &script]);
        second.env = vec!["PATH=/bin".to_owned()];
        let exit = container.access().exec(second, io, CancellationToken::new()).await.expect("ran");
        assert_eq!((exit.code, out.text().as_str()), (0, "hello\n1\n"), "{runtime}");
        assert_eq!(record.requests().len(), 1);
        cancel.cancel();
        assert!(matches!(container.wait().await, Err(crosskit_exec::Error::Canceled)), "{runtime}");
        assert_eq!(fs::read_to_string(root.path().join(BUNDLE)).expect("text"), "theirs\n");
        is_empty(&lab);
    }
}
