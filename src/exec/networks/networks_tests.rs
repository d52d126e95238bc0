use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    lists::NetworkList,
    namespaces,
    sandboxes::{Note, Sandboxes},
    *,
};
use crate::{Error, Security};

/// A plugin that notes what it is asked: its call in `calls`, what it is given in `NAME.COMMAND`. It answers with its
/// configuration's `answer`, and fails if there is a file `fail`.
const RECORDER: &str = r#"#!/bin/sh
folder=$(dirname "$0")
name=$(basename "$0")
cat > "$folder/$name.$CNI_COMMAND"
echo "$CNI_COMMAND $name id=$CNI_CONTAINERID ns=$CNI_NETNS if=$CNI_IFNAME args=$CNI_ARGS path=$CNI_PATH" >> "$folder/calls"
echo "{\"from\": \"$name\"}"
if [ -e "$folder/$name.fails" ]; then exit 1; fi
"#;

struct Lab {
    folder: TempDir,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Lab {
    fn new(plugins: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("plugins")).expect("made");
        for plugin in plugins {
            let path = folder.path().join("plugins").join(plugin);
            fs::write(&path, RECORDER).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        }
        Self { folder, tasks: TaskTracker::new(), closing: CancellationToken::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn places(&self) -> Places {
        Places { namespaces: self.path("net"), notes: self.path("notes") }
    }

    fn options(&self, list: Value) -> NetworkOptions {
        fs::write(self.path("net.conflist"), list.to_string()).expect("written");
        NetworkOptions {
            mode: NetworkMode::Cni,
            config: self.path("net.conflist"),
            plugins: Some(self.path("plugins")),
            ..NetworkOptions::default()
        }
    }

    fn networks(&self, options: &NetworkOptions) -> Result<Arc<Networks>> {
        Networks::new(options, self.places(), self.tasks.clone(), self.closing.clone()).map(Arc::new)
    }

    /// As an executor does it.
    async fn shut_down(&self, networks: &Networks) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        networks.shutdown().await;
    }

    /// The calls so far; names of sandboxes and paths are replaced by words.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("plugins/calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("plugins/calls"));
        let one = |line: &str| {
            let id = line.split("id=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an id");
            assert!(id.len() == 25 && id.chars().all(|c| c.is_ascii_alphanumeric()), "{line}");
            line.replace(self.path("").to_str().expect("text"), "/").replace(id, "ID")
        };
        text.lines().map(one).collect()
    }

    /// What a plugin was given.
    fn given(&self, call: &str) -> Value {
        let text = fs::read_to_string(self.path("plugins").join(call)).expect("it was called");
        serde_json::from_str(&text).expect("JSON")
    }

    fn notes(&self) -> usize {
        Note::all(&self.path("notes")).len()
    }
}

fn list() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "test",
        "plugins": [{ "type": "first", "colour": "red" }, { "type": "second", "prevResult": "stale" }],
    })
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).expect("there").ino()
}

#[test]
fn lists_and_single_configurations_are_read() {
    let read = NetworkList::parse(&list().to_string()).unwrap();
    assert_eq!((read.name.as_str(), read.version.as_str(), read.plugins.len()), ("test", "0.4.0", 2));
    let single = r#"{"cniVersion": "1.0.0", "name": "one", "type": "bridge", "bridge": "b0"}"#;
    let read = NetworkList::parse(single).unwrap();
    assert_eq!(read.given(&read.plugins[0], None), serde_json::from_str::<Value>(single).unwrap());
    assert!(read.tells_results());
    let old = NetworkList::parse(r#"{"name": "one", "type": "bridge"}"#).unwrap();
    assert_eq!(old.given(&old.plugins[0], None)["cniVersion"], "0.1.0");
    assert!(!old.tells_results());
    for (text, why) in [
        ("[]", "it is no JSON object"),
        (r#"{"name": "a", "plugins": []}"#, "\"plugins\" is empty"),
        (r#"{"name": "a", "plugins": {}}"#, "\"plugins\" is no list"),
        (r#"{"name": "a", "plugins": [1]}"#, "1 in \"plugins\" is no object"),
        (r#"{"name": "a"}"#, "\"type\" of a plugin is \"\""),
        (r#"{"name": "a", "type": "../../bin/sh"}"#, "\"type\" of a plugin is \"../../bin/sh\""),
        (r#"{"type": "bridge"}"#, "\"name\" is \"\""),
        (r#"{"name": "a/b", "type": "bridge"}"#, "\"name\" is \"a/b\""),
    ] {
        let said = NetworkList::parse(text).unwrap_err();
        assert!(said.starts_with(why), "{text}: {said}");
    }
}

#[tokio::test]
async fn plugins_are_called_in_order_and_undone_in_reverse() {
    let lab = Lab::new(&["first", "second"]);
    let networks = lab.networks(&lab.options(list())).unwrap();
    let lease = networks.lease(String::new(), Security::Sandbox).await.unwrap().expect("a namespace");
    let call = "id=ID ns=/net/ID if=eth0 args= path=/plugins";
    assert_eq!(lab.calls(), [format!("ADD first {call}"), format!("ADD second {call}")]);
    let first = json!({ "cniVersion": "0.4.0", "name": "test", "type": "first", "colour": "red" });
    assert_eq!(lab.given("first.ADD"), first);
    let previous = json!({ "from": "first" });
    assert_eq!(lab.given("second.ADD")["prevResult"], previous);
    // A namespace of its own, with a loopback interface that is up.
    assert_ne!(inode(lease.path()), inode(Path::new("/proc/self/ns/net")));
    let file = fs::File::open(lease.path()).unwrap();
    let flags = std::thread::spawn(move || {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.connect("127.0.0.1:9")).is_ok()
    });
    assert!(flags.join().unwrap());
    let path = lease.path().to_owned();
    drop(lease);
    assert_eq!((lab.calls(), lab.notes()), (Vec::<String>::new(), 1));
    lab.shut_down(&networks).await;
    assert_eq!(lab.calls(), [format!("DEL second {call}"), format!("DEL first {call}")]);
    for call in ["second.DEL", "first.DEL"] {
        assert_eq!(lab.given(call)["prevResult"], json!({ "from": "second" }), "{call}");
    }
    assert!(!path.exists() && !lab.path("notes").exists());
}

#[tokio::test]
async fn a_named_sandbox_has_one_for_itself_and_so_has_an_insecure_one() {
    let lab = Lab::new(&["first", "second"]);
    let networks = lab.networks(&lab.options(list())).unwrap();
    let named = networks.lease("box".to_owned(), Security::Sandbox).await.unwrap().expect("a namespace");
    assert!(lab.calls()[0].contains(" args=K8S_POD_NAME=box;IgnoreUnknown=1 "));
    let insecure = networks.lease(String::new(), Security::Insecure).await.unwrap().expect("a namespace");
    drop((named, insecure));
    lab.tasks.close();
    lab.tasks.wait().await;
    assert_eq!((lab.calls().len(), lab.notes()), (2 + 4, 0));
    lab.shut_down(&networks).await;
    assert_eq!(lab.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_plugin_that_fails_leaves_nothing_and_is_named() {
    let lab = Lab::new(&["first", "second"]);
    let networks = lab.networks(&lab.options(list())).unwrap();
    fs::write(lab.path("plugins/second.fails"), "").unwrap();
    let error = networks.start().await.unwrap_err();
    assert_eq!(error.to_string(), "CNI setup error: plugin second (ADD): exit status: 1");
    assert_eq!(error.kind(), crate::Kind::Environment);
    let commands: Vec<_> = lab.calls().iter().map(|call| call[..10].trim().to_owned()).collect();
    assert_eq!(commands, ["ADD first", "ADD second", "DEL second", "DEL first"]);
    assert_eq!((lab.notes(), fs::read_dir(lab.path("net")).unwrap().count()), (0, 0));
    fs::remove_file(lab.path("plugins/first")).unwrap();
    let error = networks.lease(String::new(), Security::Sandbox).await;
    assert!(error.is_err(), "it is shut down");
    let fresh = Sandboxes {
        list: NetworkList::parse(&list().to_string()).unwrap(),
        folders: vec![lab.path("plugins")],
        places: Places { namespaces: lab.path("net"), notes: lab.path("") },
    };
    let Err(Error::Plugin { plugin, why, .. }) = fresh.attach(None).await else { panic!("it is missing") };
    assert_eq!(plugin, "first");
    assert!(why.starts_with("it is not in /") && why.contains("install the CNI plugins"), "{why}");
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_undone_as_it_was_made() {
    let lab = Lab::new(&["first", "second"]);
    let networks = lab.networks(&lab.options(list())).unwrap();
    networks.start().await.unwrap();
    let lease = networks.lease(String::new(), Security::Sandbox).await.unwrap().expect("a namespace");
    let path = lease.path().to_owned();
    std::mem::forget(lease);
    lab.calls();
    fs::write(lab.path("notes/half.new"), "{").unwrap();

    // The next one has the machine's network, and still knows what to do.
    let next = Lab { folder: lab.folder, tasks: TaskTracker::new(), closing: CancellationToken::new() };
    let host = NetworkOptions { mode: NetworkMode::Host, ..NetworkOptions::default() };
    let networks = next.networks(&host).unwrap();
    assert_eq!(networks.label(), "host");
    networks.start().await.unwrap();
    next.tasks.close();
    next.tasks.wait().await;
    let call = "id=ID ns=/net/ID if=eth0 args= path=/plugins";
    assert_eq!(next.calls(), [format!("DEL second {call}"), format!("DEL first {call}")]);
    assert_eq!(next.given("first.DEL")["prevResult"], json!({ "from": "second" }));
    assert!(!path.exists());
    next.shut_down(&networks).await;
    assert!(!next.path("notes").exists());
}

#[tokio::test]
async fn a_namespace_that_is_gone_is_undone_without_it() {
    let lab = Lab::new(&["first", "second"]);
    let options = lab.options(list());
    let networks = lab.networks(&options).unwrap();
    let lease = networks.lease(String::new(), Security::Sandbox).await.unwrap().expect("a namespace");
    // As when the mount namespace of a killed daemon is gone: the file is there, and stands for nothing.
    rustix::mount::unmount(lease.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(!namespaces::is_alive(lease.path()));
    lab.calls();
    drop(lease);
    lab.shut_down(&networks).await;
    let call = "id=ID ns= if=eth0 args= path=/plugins";
    assert_eq!(lab.calls(), [format!("DEL second {call}"), format!("DEL first {call}")]);
}

#[test]
fn auto_takes_what_is_described_else_the_machines() {
    let lab = Lab::new(&["bridge", "host-local", "firewall"]);
    let auto = NetworkOptions { mode: NetworkMode::Auto, ..lab.options(list()) };
    let label = |options: &NetworkOptions| lab.networks(options).map(|networks| networks.label());
    assert_eq!(label(&auto).unwrap(), "cni");
    let nothing = NetworkOptions { config: lab.path("nothing.json"), ..auto.clone() };
    assert_eq!(label(&nothing).unwrap(), "host");
    let bridged = NetworkOptions { auto_bridge: true, ..nothing.clone() };
    assert_eq!(label(&bridged).unwrap(), "cni");
    let missing = NetworkOptions { mode: NetworkMode::Cni, ..nothing };
    assert!(label(&missing).unwrap_err().to_string().starts_with("reading the network configuration /"));
    let missing = NetworkOptions { plugins: Some(lab.path("no-plugins")), ..auto };
    assert!(label(&missing).unwrap_err().to_string().contains("there is no such folder"));
    let missing = NetworkOptions { plugins: Some(lab.path("notes")), ..bridged };
    assert!(label(&missing).unwrap_err().to_string().starts_with("finding the CNI plugin /"));
}

#[test]
fn the_bridge_is_described_as_configured() {
    let lab = Lab::new(&["bridge"]);
    let (list, folders) = bridge::list("steps0", "10.9.0.0/24", &lab.path("plugins")).unwrap();
    assert_eq!((list.name.as_str(), list.version.as_str()), ("buildkit", "1.0.0"));
    let [bridge, firewall] = list.plugins.as_slice() else { panic!("two plugins") };
    assert_eq!((&bridge["bridge"], &bridge["ipMasq"]), (&json!("steps0"), &json!(true)));
    assert_eq!(bridge["ipam"]["ranges"], json!([[{ "subnet": "10.9.0.0/24" }]]));
    assert_eq!(firewall["ingressPolicy"], "same-bridge");
    assert!(folders == [lab.path("plugins")] || bridge["type"] == "buildkit-cni-bridge");
}
