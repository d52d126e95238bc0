//! The daemon's configuration.

use crosskit_daemon::config::Config;

/// Words of configurations.
pub const WORDS: &[&str] = &[
    "[worker.oci]\n",
    "[[worker.oci.gcpolicy]]\n",
    "[grpc]\n",
    "[registry.\"a\"]\n",
    "[farm]\n",
    "[[farm.worker]]\n",
    "[dns]\n",
    "[history]\n",
    " = true\n",
    " = \"10%\"\n",
    " = \"48h\"\n",
    " = [",
    "]\n",
    "-1",
    "9223372036854775807",
    "99999999999999999999GB",
    "\"\"\"",
    "'",
    "\n",
    "1e308",
    "1979-05-27T07:32:00Z",
    "keepDuration",
    "maxUsedSpace",
];

/// Reads a configuration. An error says in which file.
pub fn run(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("buildkitd.toml");
    std::fs::write(&path, bytes).expect("a file can be written");
    if let Err(error) = Config::load(&path) {
        assert!(error.to_string().contains("buildkitd.toml"), "{error}");
    }
}
