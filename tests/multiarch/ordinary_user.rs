//! An ordinary user of this machine, and what they start.

use crate::daemon::DaemonOptions;
use crate::running::Ran;
use crate::scene::Scene;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// A number that no user of the machine has.
const ID: u32 = 41_000;
/// Their name.
const NAME: &str = "crosskit-test";

/// Gives the user what a machine has that knows them, in mounts of its own, and becomes them: FOLDER BINARY EMULATORS ID,
/// then what to start. Whoever may read the folder that programs were built in, the user need not.
const START: &str = r#"set -eu
folder=$1 binary=$2 emulators=$3 id=$4
shift 4
for file in passwd subuid subgid; do
  [ -e /etc/$file ] || : > /etc/$file
  mount --bind "$folder/$file" /etc/$file
done
for name in buildkitd buildctl crosskit; do mount --bind "$binary" "$folder/programs/$name"; done
mount --bind "$emulators" "$folder/qemu"
# Some machines let nobody but root have it.
mount --bind "$folder/fuse" /dev/fuse
cd "$folder/home"
exec setpriv --reuid="$id" --regid="$id" --clear-groups --inh-caps=-all \
  env -i HOME="$folder/home" USER="$NAME" XDG_RUNTIME_DIR="$folder/runtime" TMPDIR="$folder/tmp" \
  PATH="$folder/programs:$folder/qemu:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$@"
"#;

/// An ordinary user who is known only to what this value starts.
pub struct OrdinaryUser {
    folder: PathBuf,
    binary: PathBuf,
    emulators: PathBuf,
}

impl OrdinaryUser {
    /// Makes one, with a home in the scene, to whom these ids belong: `START:COUNT`, or none if empty.
    pub fn new(scene: &Scene, ids: &str) -> OrdinaryUser {
        let folder = scene.path("user");
        let binary = std::fs::canonicalize(scene.programs.path("buildkitd")).expect("the program is there");
        let user = OrdinaryUser { folder, binary, emulators: scene.parts.qemu() };
        for name in ["programs", "qemu", "home", "runtime", "tmp"] {
            std::fs::create_dir_all(user.folder.join(name)).expect("make a folder");
        }
        for name in ["home", "runtime", "tmp"] {
            user.give(&user.folder.join(name));
        }
        for path in [scene.folder(), &user.folder] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o711)).expect("let others through");
        }
        let range = if ids.is_empty() { String::new() } else { format!("{NAME}:{ids}\n") };
        let home = user.folder.join("home");
        let users = format!("root:x:0:0::/root:/bin/sh\n{NAME}:x:{ID}:{ID}::{}:/bin/sh\n", home.display());
        let start = START.replace("$NAME", NAME);
        let texts = [("passwd", users), ("subuid", range.clone()), ("subgid", range), ("start", start)];
        let places = ["buildkitd", "buildctl", "crosskit"].map(|name| (name, String::new()));
        for (name, text) in texts {
            std::fs::write(user.folder.join(name), text).expect("write a file");
        }
        for (name, text) in places {
            std::fs::write(user.folder.join("programs").join(name), text).expect("make a place");
        }
        let (device, fuse) = (rustix::fs::makedev(10, 229), user.folder.join("fuse"));
        let (kind, all) = (rustix::fs::FileType::CharacterDevice, 0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &fuse, kind, all.into(), device).expect("make a device");
        std::fs::set_permissions(&fuse, PermissionsExt::from_mode(all)).expect("set its mode");
        user
    }

    /// Gives a folder to the user.
    pub fn give(&self, path: &std::path::Path) {
        std::os::unix::fs::chown(path, Some(ID), Some(ID)).expect("give it away");
    }

    /// Their home.
    pub fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Where programs that they start put sockets.
    pub fn runtime_folder(&self) -> PathBuf {
        self.folder.join("runtime")
    }

    /// The words before a command that this user is to start.
    pub fn through(&self) -> Vec<OsString> {
        let start = self.folder.join("start");
        let words = ["unshare", "--mount", "--propagation", "slave", "sh"].map(OsString::from);
        let paths = [&start, &self.folder, &self.binary, &self.emulators].map(|path| path.clone().into());
        words.into_iter().chain(paths).chain([ID.to_string().into()]).collect()
    }

    /// Runs something as this user.
    pub fn run(&self, words: &[&str]) -> Ran {
        let through = self.through();
        Ran::run(Command::new(&through[0]).args(&through[1..]).args(words))
    }

    /// A daemon of theirs, in a folder of that name, started with these words before its own.
    pub fn daemon(&self, scene: &Scene, name: &str, before: &[&str], arguments: &[&str]) -> DaemonOptions {
        let folder = scene.path(name);
        std::fs::create_dir_all(folder.join("tmp")).expect("make a folder");
        self.give(&folder);
        self.give(&folder.join("tmp"));
        let before = before.iter().map(OsString::from);
        DaemonOptions {
            name: name.to_owned(),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            through: self.through().into_iter().chain(before).collect(),
            program: Some("buildkitd".into()),
            ..DaemonOptions::default()
        }
    }
}
