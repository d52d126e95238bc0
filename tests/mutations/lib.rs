//! What reads foreign bytes, called with bytes that somebody has damaged.
//!
//! A [`Target`] is a function that takes any bytes; it panics where a promise is broken, and errors are none. The same
//! functions serve three callers: the ordinary tests, which feed each the seeds in `fuzz/corpus` and some thousand
//! [`Mutator`]s' changes of them; `mutate`, which does the same for as long as it is told; and cargo-fuzz in `fuzz/`.

mod bundles;
mod configs;
mod dockerfiles;
mod layers;
mod llb;
mod manifests;
mod mutator;
mod packets;
mod seeds;

pub use mutator::Mutator;
pub use seeds::write as write_seeds;

use std::path::{Path, PathBuf};

/// Something that reads foreign bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is that of its folder in `fuzz/corpus` and of the target in `fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Takes bytes; panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Words of its language, which chance alone would not find.
    pub words: &'static [&'static str],
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target { name: "llb", run: llb::run, words: &[] },
    Target { name: "packets", run: packets::run, words: &["../", "/", "a/b", "\0"] },
    Target {
        name: "layers",
        run: layers::run,
        words: &["../", "/", ".wh.", ".wh..wh..opq", "GNU.sparse.major=1\n"],
    },
    Target { name: "dockerfiles", run: dockerfiles::run, words: dockerfiles::WORDS },
    Target { name: "configs", run: configs::run, words: configs::WORDS },
    Target { name: "manifests", run: manifests::run, words: manifests::WORDS },
    Target { name: "bundles", run: bundles::run, words: bundles::WORDS },
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// The folder with the seeds of all targets.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

/// The seeds of a target, in the order of their names.
///
/// # Errors
/// A folder or a file that cannot be read.
pub fn seeds(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(corpus().join(target.name))? {
        paths.push(entry?.path());
    }
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Runs asynchronous work to its end, with threads for what blocks.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    let start = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("threads can be started")
    };
    RUNTIME.get_or_init(start).block_on(work)
}
