//! A folder of its own with everything one end-to-end run needs.

use crate::base::BaseImage;
use crate::daemon::{Daemon, DaemonOptions};
use crate::parts::Parts;
use crate::programs::Programs;
use crate::registry::Registry;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a scanner's image runs, by BuildKit's protocol for scanners.
const SCAN: &str = r#"#!/bin/sh
scan() {
  cat > "$BUILDKIT_SCAN_DESTINATION/${1##*/}.spdx.json" <<END
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
 "predicate": {"spdxVersion": "SPDX-2.3", "name": "$2", "creationInfo": {"creators": ["Tool: test"]},
 "files": [{"fileName": "$(cd "$1" && echo f*)"}]}}
END
}
scan "$BUILDKIT_SCAN_SOURCE" "$BUILDKIT_SCAN_WORD"
[ -z "$BUILDKIT_SCAN_SOURCE_EXTRAS" ] || for extra in "$BUILDKIT_SCAN_SOURCE_EXTRAS"/*; do scan "$extra" "${extra##*/}"; done
"#;

/// The folder, the registry with the base image in it, and the programs under test.
pub struct Scene {
    /// The real programs around.
    pub parts: Parts,
    /// The programs under test.
    pub programs: Programs,
    /// The registry; `base:latest` is in it.
    pub registry: Registry,
    /// The base image that was pushed.
    pub base_image: BaseImage,
    folder: TempDir,
}

impl Scene {
    /// Sets the scene: a new folder, a registry, the base image pushed.
    pub fn set() -> Scene {
        Scene::set_for(None)
    }

    /// Sets the scene for the programs of somebody else: a folder with their `buildkitd` and `buildctl`.
    pub fn set_for(others: Option<&Path>) -> Scene {
        let parts = Parts::find();
        let folder = TempDir::with_prefix("crosskit-").expect("create a folder for the test");
        let programs = match others {
            Some(others) => Programs::of(others),
            None => Programs::link_into(&folder.path().join("programs")),
        };
        let registry = Registry::start(&parts, &folder.path().join("registry"));
        let base_image = BaseImage::make(&parts);
        base_image.push(&registry, "base", "latest");
        Scene { parts, programs, registry, base_image, folder }
    }

    /// The reference of the base image.
    pub fn base(&self) -> String {
        self.registry.reference("base:latest")
    }

    /// The scene's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a daemon with what is usual.
    pub fn daemon(&self) -> Daemon {
        self.daemon_with(DaemonOptions::default())
    }

    /// Starts a daemon as `options` say. Its root is the scene's folder `daemon` unless they say otherwise.
    pub fn daemon_with(&self, options: DaemonOptions) -> Daemon {
        Daemon::start(self, options)
    }

    /// Writes a build context: paths and contents. `BASE` in a Dockerfile stands for the base image.
    pub fn context(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).expect("create a context");
        for (path, content) in files {
            self.write(name, path, content);
        }
        folder
    }

    /// Writes one file of a context, like [`Scene::context`].
    pub fn write(&self, context: &str, path: &str, content: &str) {
        let file = self.path(context).join(path);
        std::fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("create a folder");
        let content = match path.ends_with("Dockerfile") {
            true => content.replace("BASE", &self.base()),
            false => content.to_owned(),
        };
        std::fs::write(&file, content).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }

    /// Builds and pushes an image that scans a result: its document is called as the scanner's `WORD` says and lists the
    /// files whose names begin with an f. Gives its reference.
    pub fn push_scanner(&self, daemon: &Daemon) -> String {
        let dockerfile = "FROM BASE\nCOPY --chmod=755 scan /scan\nENTRYPOINT [\"/bin/sh\", \"/scan\"]\n";
        let context = self.context("scanner", &[("Dockerfile", dockerfile), ("scan", SCAN)]);
        let name = self.registry.reference("scanner:1");
        daemon.build(&context).output(&format!("type=image,name={name},push=true")).run().ok();
        name
    }
}
