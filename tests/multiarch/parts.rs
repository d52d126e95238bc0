//! The real programs that tests run with, as `tests/parts.sh` prepares them.

use std::env;
use std::path::{Path, PathBuf};

/// The parts folder: `$CROSSKIT_TEST_PARTS`, or `target/parts` of this workspace.
#[derive(Debug, Clone)]
pub struct Parts {
    root: PathBuf,
}

impl Parts {
    /// Finds the folder. What is missing in it is said when it is asked for.
    pub fn find() -> Parts {
        let root = env::var_os("CROSSKIT_TEST_PARTS")
            .map_or_else(|| workspace().join("target/parts"), PathBuf::from);
        Parts { root }
    }

    /// Static busybox for an architecture by its OCI name (`arm64`, `386`).
    pub fn busybox(&self, architecture: &str) -> PathBuf {
        self.file(&format!("busybox/{architecture}/busybox"))
    }

    /// The folder with `qemu-aarch64` and its siblings.
    pub fn qemu(&self) -> PathBuf {
        self.file("qemu/qemu-aarch64").parent().expect("a file is in a folder").to_path_buf()
    }

    /// The buildx client.
    pub fn docker_buildx(&self) -> PathBuf {
        self.file("bin/docker-buildx")
    }

    /// The folder that Docker's engine and its client were unpacked in.
    pub fn engine(&self) -> PathBuf {
        self.file("engine/usr/sbin/dockerd").ancestors().nth(3).expect("three folders above").to_path_buf()
    }

    /// An archive of a Debian root with what the appliance's image needs of it.
    pub fn appliance_base(&self) -> PathBuf {
        self.file("appliance/root.tar")
    }

    /// The folder of Python's modules with moto, a server that speaks S3.
    pub fn moto(&self) -> PathBuf {
        self.file("moto/moto/server.py").ancestors().nth(2).expect("two folders above").to_path_buf()
    }

    /// The program of azurite, a server of Azure's blobs, for node.
    pub fn azurite(&self) -> PathBuf {
        self.file("azurite/node_modules/azurite/dist/src/blob/main.js")
    }

    /// The folder of Python's modules that judge what is attested.
    pub fn attestations(&self) -> PathBuf {
        self.file("attestations/sigstore/dsse/_predicate.py")
            .ancestors()
            .nth(3)
            .expect("three above")
            .to_path_buf()
    }

    /// What validates Kubernetes' manifests by the schemas of some of its versions.
    pub fn kubernetes_validate(&self) -> PathBuf {
        self.file("bin/kubernetes-validate")
    }

    /// The registry server.
    pub fn docker_registry(&self) -> PathBuf {
        self.file("bin/docker-registry")
    }

    /// A program of this machine, by name.
    pub fn on_machine(&self, name: &str) -> PathBuf {
        search_path()
            .into_iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
            .unwrap_or_else(|| panic!("{name} is not on this machine: run tests/parts.sh"))
    }

    fn file(&self, name: &str) -> PathBuf {
        let file = self.root.join(name);
        assert!(file.is_file(), "{} is not there: run tests/parts.sh", file.display());
        file
    }
}

/// The folders programs are looked for in: PATH, and where Debian keeps those of root.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    for folder in ["/usr/sbin", "/sbin"] {
        if !folders.iter().any(|known| known == Path::new(folder)) {
            folders.push(folder.into());
        }
    }
    folders
}

/// The root folder of the workspace.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tests/multiarch is two below the workspace").to_path_buf()
}
