use super::*;
use crate::SessionError;
use bytes::Bytes;
use crosskit_api::fsutil::packet::PacketType;
use crosskit_api::fsutil::{Packet, Stat};
use futures::StreamExt;
use prost::Message;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};

/// Both ends, with nothing but channels between them.
async fn transfer(tree: Arc<dyn Tree>, to: &Path, options: Receive) -> Result<Received, SessionError> {
    let (out, batches) = mpsc::channel::<Batch>(4);
    let (answers, answered) = mpsc::unbounded_channel();
    let sending = tokio::spawn(send(tree, UnboundedReceiverStream::new(answered).map(Ok), out, None));
    let packets = ReceiverStream::new(batches).flat_map(|b| futures::stream::iter(b.into_iter().map(Ok)));
    let received = receive(packets, answers, to, options).await;
    let sent = sending.await.unwrap();
    if received.is_ok() {
        sent.unwrap();
    }
    received
}

async fn sync(from: &Path, to: &Path) -> Received {
    transfer(Arc::new(Folder::open(from).unwrap()), to, Receive::default()).await.unwrap()
}

fn shell(dir: &Path, script: &str) {
    let done = Command::new("sh").arg("-ec").arg(script).current_dir(dir).status().unwrap();
    assert!(done.success(), "{script}");
}

/// Everything about a tree that a transfer keeps.
fn listing(dir: &Path) -> String {
    let script = "find . -mindepth 1 -printf '%P %y %m %U:%G %s %T@ %l %n\\n' | sed 's/\\( d .*\\) [0-9]* \\([0-9.]*  [0-9]*\\)$/\\1 \\2/' | sort; find . -type f -exec sha256sum {} + | sort";
    let out = Command::new("sh").arg("-ec").arg(script).current_dir(dir).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn dirs() -> (TempDir, TempDir) {
    (TempDir::new().unwrap(), TempDir::new().unwrap())
}

const TREE: &str = r"
    umask 022; mkdir -p a/b/c d 'odd name' a.b empty; echo one >a/one; echo two >a/b/two; : >a/b/c/nothing
    head -c 1500000 /dev/urandom >d/big; head -c 131072 /dev/urandom >d/piece; head -c 131071 /dev/urandom >d/less
    ln -s ../a/one d/link; ln -s /etc/passwd d/absolute; ln -s nowhere dangling; ln a/one a/b/same; ln a/one z-same
    chmod 4755 d/piece; chmod 1777 empty; chmod 0400 a/b/two; chown 12:34 d/less; mkfifo d/pipe; chmod 0751 a/b
    echo x >'odd name/ünï cödé'; touch -d @1000000000.123456789 a/one; touch -d @999 a/b d; touch -h -d @5 d/link";

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_arrives_as_it_is_and_only_once() {
    let (from, to) = dirs();
    shell(from.path(), TREE);
    let first = sync(from.path(), to.path()).await;
    assert_eq!(listing(from.path()), listing(to.path()));
    assert_eq!(first.files, 7);
    let again = sync(from.path(), to.path()).await;
    assert_eq!((again.files, again.entries), (0, first.entries));
    assert_eq!(listing(from.path()), listing(to.path()));
}

/// A listing without link counts, for trees whose files have names elsewhere.
fn strip(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.rsplit_once(' ').map_or(line, |(rest, _)| rest).trim_end()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_and_nothing_is_written_in_place() {
    let (from, to) = dirs();
    shell(from.path(), TREE);
    sync(from.path(), to.path()).await;
    let kept = TempDir::new().unwrap();
    shell(to.path(), &format!("cp -al . {}/copy", kept.path().display()));
    let before = listing(&kept.path().join("copy"));
    for change in [
        "echo three >d/big",
        "rm -r a/b; echo file >a/b",
        "rm z-same; mkdir z-same; echo in >z-same/it",
        "rm -r z-same; ln -s d z-same",
        "rm d/link; echo now a file >d/link; rm -r 'odd name'",
        "chmod 0600 d/less; chmod 0700 d",
        "rm dangling; mkfifo dangling; rm d/pipe; mkdir d/pipe",
        "echo more >>a/one",
        "ln -f d/piece a/one",
        "rm -rf ./*",
    ] {
        shell(from.path(), change);
        sync(from.path(), to.path()).await;
        assert_eq!(strip(&listing(from.path())), strip(&listing(to.path())), "after {change}");
    }
    assert_eq!(strip(&before), strip(&listing(&kept.path().join("copy"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_follow_a_file_that_changes() {
    let (from, to) = dirs();
    shell(from.path(), "echo 1 >a; ln a b; touch -d @7 a");
    sync(from.path(), to.path()).await;
    shell(from.path(), "echo 2 >a; touch -d @8 a");
    sync(from.path(), to.path()).await;
    assert_eq!(std::fs::read_to_string(to.path().join("b")).unwrap(), "2\n");
    let inode = |name: &str| std::fs::metadata(to.path().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_selected_arrives() {
    let from = TempDir::new().unwrap();
    shell(
        from.path(),
        "mkdir -p a/b node_modules/x; echo >a/b/keep; echo >a/b/drop; echo >a/top; echo >node_modules/x/y; echo >root; ln -s a/b/keep here; ln -s /root out; ln -s loop loop",
    );
    let strings = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    for (include, exclude, follow, expected) in [
        (&["a/b/keep"][..], &[][..], &[][..], "a a/b a/b/keep"),
        (&["a/**/keep"], &[], &[], "a a/b a/b/keep"),
        (&[], &["node_modules", "a/b/drop", "*out", "loop"], &[], "a a/b a/b/keep a/top here root"),
        (&[], &["a", "!a/b/keep", "node_modules", "loop", "out"], &[], "a a/b a/b/keep here root"),
        (&["a"], &["a/b"], &[], "a a/top"),
        (&[], &[], &["here"], "a a/b a/b/keep here"),
        (&[], &[], &["out"], "out root"),
        (&[], &[], &["lo*"], "loop"),
        (&[], &[], &["h*"], "a a/b a/b/keep here"),
        (&["nothing"], &[], &[], ""),
    ] {
        let to = TempDir::new().unwrap();
        let select = Select { include: strings(include), exclude: strings(exclude), follow: strings(follow) };
        let tree = Folder::open(from.path()).unwrap().select(&select).unwrap();
        transfer(Arc::new(tree), to.path(), Receive::default()).await.unwrap();
        let out = Command::new("sh")
            .arg("-c")
            .arg("find . -mindepth 1 -printf '%P\\n' | LC_ALL=C sort")
            .current_dir(to.path())
            .output()
            .unwrap();
        let found = String::from_utf8(out.stdout)
            .unwrap()
            .split('\n')
            .filter(|l| !l.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(found, expected, "{select:?}");
    }
}

/// Packets of a sender that does what it likes.
async fn hostile(to: &Path, stats: Vec<Stat>) -> String {
    let (answers, _answered) = mpsc::unbounded_channel();
    let packets = stats
        .into_iter()
        .map(Some)
        .chain([None])
        .map(|stat| Ok(Packet { r#type: PacketType::PacketStat as i32, stat, ..Packet::default() }));
    let packets = futures::stream::iter(packets.collect::<Vec<_>>()).chain(futures::stream::pending());
    let mut packets = Box::pin(packets);
    receive(&mut packets, answers, to, Receive::default()).await.unwrap_err().to_string()
}

fn stat(path: &str, unix_mode: u32, linkname: &str) -> Stat {
    Stat { path: path.into(), mode: mode_from_unix(unix_mode), linkname: linkname.into(), ..Stat::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_gets_out_of_the_folder() {
    let outside = TempDir::new().unwrap();
    let target = outside.path().to_str().unwrap();
    for (stats, text) in [
        (vec![stat("../x", 0o100644, "")], "escape check"),
        (vec![stat("/x", 0o100644, "")], "absolute path"),
        (vec![stat("a/../../x", 0o100644, "")], "escape check"),
        (vec![stat("l", 0o120777, target), stat("l/x", 0o100644, "")], "out of order"),
        (
            vec![stat("l", 0o120777, target), stat("l", 0o040755, ""), stat("l/x", 0o100644, "")],
            "out of order",
        ),
        (vec![stat("b", 0o100644, ""), stat("a", 0o100644, "")], "out of order"),
        (vec![stat("h", 0o100644, "/etc/passwd")], "unknown path"),
        (vec![stat("h", 0o100644, "../../etc/passwd")], "unknown path"),
    ] {
        let to = TempDir::new().unwrap();
        let err = hostile(to.path(), stats).await;
        assert!(err.contains(text), "{err}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);

    // A link that is there already is replaced by the folder, not followed.
    let (from, to) = dirs();
    shell(from.path(), "mkdir l; echo >l/x");
    symlink(outside.path(), to.path().join("l")).unwrap();
    sync(from.path(), to.path()).await;
    assert!(to.path().join("l/x").exists());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, Told>>);

type Told = (ChangeKind, Option<[u8; 32]>);

struct Sum(sha2::Sha256);

impl Checksum for Sum {
    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    fn finish(self: Box<Self>) -> [u8; 32] {
        sha2::Digest::finalize(self.0).into()
    }
}

impl ChangeSink for Seen {
    fn checksum(&self, stat: &Stat) -> Box<dyn Checksum> {
        use sha2::Digest;
        Box::new(Sum(sha2::Sha256::new_with_prefix(format!("{}|", stat.path))))
    }

    fn changed(&self, change: Change<'_>) {
        self.0.lock().unwrap().insert(change.path.to_string(), (change.kind, change.digest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_told_with_its_checksum() {
    use sha2::{Digest, Sha256};
    let (from, to) = dirs();
    shell(from.path(), "mkdir d; echo hi >d/f; ln -s f d/l; ln d/f h; echo >gone");
    let tell = async |from: &Path, to: &Path| {
        let seen = Arc::new(Seen::default());
        let options = Receive { changes: Some(seen.clone()), ..Receive::default() };
        transfer(Arc::new(Folder::open(from).unwrap()), to, options).await.unwrap();
        std::mem::take(&mut *seen.0.lock().unwrap())
    };
    let seen = tell(from.path(), to.path()).await;
    let sum = |text: &str| Some(<[u8; 32]>::from(Sha256::digest(text)));
    assert_eq!(seen["d"], (ChangeKind::Add, sum("d|")));
    assert_eq!(seen["d/f"], (ChangeKind::Add, sum("d/f|hi\n")));
    assert_eq!(seen["d/l"], (ChangeKind::Add, sum("d/l|")));
    assert_eq!(seen["h"], (ChangeKind::Add, sum("h|")));
    assert!(tell(from.path(), to.path()).await.is_empty());
    shell(from.path(), "rm gone; rm d/l; ln -s g d/l");
    let seen = tell(from.path(), to.path()).await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["d/l", "gone"]);
    assert_eq!(seen["gone"], (ChangeKind::Delete, None));
    assert_eq!(seen["d/l"].0, ChangeKind::Modify);
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_of_several_platforms_go_into_one_folder() {
    let to = TempDir::new().unwrap();
    shell(to.path(), "echo mine >mine; mkdir -p shared; echo old >shared/a");
    let tree = |files: &[(&str, &str)]| {
        let mut memory = Memory::default();
        for (path, content) in files {
            let stat = Stat { path: path.to_string(), mode: 0o644, ..Stat::default() };
            memory.add(stat, content.as_bytes().to_vec());
        }
        Arc::new(memory) as Arc<dyn Tree>
    };
    let options = Receive { merge: true, ..Receive::default() };
    let one = transfer(tree(&[("shared/a", "A"), ("x/y/z", "Z")]), to.path(), options.clone());
    let two = transfer(tree(&[("shared/b", "B"), ("x/y/w", "W")]), to.path(), options.clone());
    let (one, two) = tokio::join!(one, two);
    one.unwrap();
    two.unwrap();
    let dir = Stat { path: "linux_arm64".into(), mode: mode_from_unix(0o040755), ..Stat::default() };
    let split = Subfolders::new([(dir, tree(&[("f", "F")]))]).unwrap();
    let merged =
        Merged::new([tree(&[("x/y", "a file"), ("m", "lower")]), tree(&[("m", "upper"), ("x/y/v", "V")])]);
    transfer(Arc::new(split), to.path(), options.clone()).await.unwrap();
    transfer(Arc::new(merged), to.path(), options).await.unwrap();
    let read = |path: &str| std::fs::read_to_string(to.path().join(path)).unwrap();
    for (path, content) in [
        ("mine", "mine\n"),
        ("shared/a", "A"),
        ("shared/b", "B"),
        ("x/y/z", "Z"),
        ("x/y/w", "W"),
        ("x/y/v", "V"),
        ("linux_arm64/f", "F"),
        ("m", "upper"),
    ] {
        assert_eq!(read(path), content, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_alone_is_kept_in_a_file() {
    let (from, to) = dirs();
    shell(from.path(), "mkdir -p a/b c; echo 1 >a/b/wanted; echo 2 >a/not; echo 3 >c/not");
    let only = Receive { only: Some(Arc::new(|path, _| path == "a/b/wanted")), ..Receive::default() };
    let tree = Arc::new(Folder::open(from.path()).unwrap());
    transfer(tree, to.path(), only).await.unwrap();
    assert_eq!(std::fs::read_to_string(to.path().join("a/b/wanted")).unwrap(), "1\n");
    assert!(!to.path().join("a/not").exists() && !to.path().join("c").exists());
    let mut kept = Bytes::from(std::fs::read(to.path().join(".fsutil-metadata")).unwrap());
    let mut paths = Vec::new();
    while !kept.is_empty() {
        let len = u32::from_le_bytes(kept.split_to(4)[..].try_into().unwrap()) as usize;
        paths.push(Stat::decode(kept.split_to(len)).unwrap().path);
    }
    assert_eq!(paths, ["a", "a/b", "a/b/wanted", "a/not", "c", "c/not"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_owners_can_be_changed_on_the_way() {
    let (from, to) = dirs();
    shell(from.path(), "echo >f; chown 5:6 f; mkdir d; chmod 2755 d");
    let value = b"some value";
    rustix::fs::setxattr(from.path().join("f"), "user.test", value, rustix::fs::XattrFlags::empty()).unwrap();
    let tree = Folder::open(from.path()).unwrap().map(Arc::new(|stat| {
        stat.uid = 77;
        stat.path != "d"
    }));
    let options = Receive { map: Some(Arc::new(|stat| stat.gid = 88)), ..Receive::default() };
    transfer(Arc::new(tree), to.path(), options).await.unwrap();
    let there = std::fs::metadata(to.path().join("f")).unwrap();
    assert_eq!((there.uid(), there.gid(), there.permissions().mode() & 0o777), (77, 88, 0o644));
    let mut read = [0u8; 20];
    let len = rustix::fs::getxattr(to.path().join("f"), "user.test", &mut read[..]).unwrap();
    assert_eq!(&read[..len], value);
    assert!(!to.path().join("d").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_fails_says_why() {
    struct Broken;
    impl Tree for Broken {
        fn walk(&self, _: &mut Visit<'_>) -> Result<(), SessionError> {
            Err(SessionError::Invalid("no such luck".into()))
        }

        fn open(&self, _: &str) -> std::io::Result<Content> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }
    let to = TempDir::new().unwrap();
    let err = transfer(Arc::new(Broken), to.path(), Receive::default()).await.unwrap_err();
    assert_eq!(err.to_string(), "error from sender: no such luck");
}

#[test]
fn what_was_exchanged_for_a_link_meanwhile_leads_nowhere() {
    use rustix::fd::AsFd;
    let (dir, outside) = dirs();
    std::fs::write(outside.path().join("secret"), "not for the daemon").unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    std::fs::write(dir.path().join("folder/secret"), "sent").unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    assert!(folder.open("folder/secret").is_ok());
    let root = std::fs::File::open(dir.path()).unwrap();
    existing::open_dir(root.as_fd(), "folder").unwrap();
    // Between the listing and the sending, or between two entries of what is received.
    std::fs::rename(dir.path().join("folder"), dir.path().join("aside")).unwrap();
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    assert!(folder.open("folder/secret").is_err());
    assert_eq!(existing::open_dir(root.as_fd(), "folder").unwrap_err(), rustix::io::Errno::LOOP);
    assert!(folder.open("../x").is_err() && existing::open_dir(root.as_fd(), "..").is_err());
}
