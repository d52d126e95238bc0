//! The programs under test, called by the names that other people's scripts use.

use crate::parts::workspace;
use std::env;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The names under which the one binary is called.
const NAMES: [&str; 4] = ["crosskit", "buildkitd", "buildctl", "binfmt"];

/// A folder with the programs under test.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Links the built binary into `folder` under each of its names.
    ///
    /// `$CROSSKIT_TEST_PROGRAMS` names a folder with a `buildkitd` and a `buildctl` of someone else
    /// instead: that is how the tests themselves are checked.
    pub fn link_into(folder: &Path) -> Programs {
        if let Some(others) = env::var_os("CROSSKIT_TEST_PROGRAMS") {
            return Programs::of(Path::new(&others));
        }
        let binary = built_binary();
        std::fs::create_dir_all(folder).expect("create the folder for the programs");
        for name in NAMES {
            let link = folder.join(name);
            if !link.exists() {
                symlink(&binary, &link).unwrap_or_else(|error| panic!("link {}: {error}", link.display()));
            }
        }
        Programs { folder: folder.to_path_buf() }
    }

    /// The programs in a folder, whoever made them.
    pub fn of(folder: &Path) -> Programs {
        Programs { folder: folder.to_path_buf() }
    }

    /// The folder, for PATH.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of the programs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether somebody else's programs are used, which have no `crosskit` and no `binfmt`.
    pub fn are_foreign(&self) -> bool {
        !self.path("crosskit").exists()
    }
}

/// `$CROSSKIT_TEST_BINARY`, or `crosskit` in the folder of the running test's own build profile.
fn built_binary() -> PathBuf {
    if let Some(binary) = env::var_os("CROSSKIT_TEST_BINARY") {
        return binary.into();
    }
    let this = env::current_exe().expect("this program has a path");
    let beside = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("crosskit"))
        .find(|file| file.is_file())
        .or_else(|| {
            ["release", "debug"]
                .into_iter()
                .map(|profile| workspace().join("target").join(profile).join("crosskit"))
                .find(|file| file.is_file())
        });
    beside.expect("the binary crosskit is not built: run `cargo build -p crosskit` (make test does)")
}
