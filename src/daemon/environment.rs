//! What the daemon's administrator wants said in every provenance: a folder of JSON files, each an object.

use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};

/// Where the files are when the config names no other folder.
const FOLDER: &str = "/etc/buildkit/provenance.d";

/// A file that can't be read or is no object.
#[derive(Debug, thiserror::Error)]
#[error("reading {path}, which is to be said in provenance: {why}")]
pub struct EnvironmentError {
    path: PathBuf,
    why: String,
}

/// Reads the files of a folder, by name; a later one counts more. A folder that isn't there says nothing.
///
/// # Errors
/// Files that can't be read or are no objects.
pub fn read(folder: Option<&Path>) -> Result<Map<String, Value>, EnvironmentError> {
    let folder = folder.unwrap_or(Path::new(FOLDER));
    let failed = |path: &Path, why: String| EnvironmentError { path: path.to_path_buf(), why };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(e) => return Err(failed(folder, e.to_string())),
    };
    let entries: io::Result<Vec<_>> = entries.collect();
    let mut paths: Vec<_> =
        entries.map_err(|e| failed(folder, e.to_string()))?.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    let mut all = Map::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json") && path.is_file()) {
        let bytes = std::fs::read(path).map_err(|e| failed(path, e.to_string()))?;
        let object: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|e| failed(path, e.to_string()))?;
        all.extend(object);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_by_name_and_later_ones_count() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.json", "{\"a\": 2}"), ("a.json", "{\"a\": 1, \"c\": [3]}"), ("x.txt", "no")]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let read_all = read(Some(dir.path())).unwrap();
        assert_eq!(Value::from(read_all), serde_json::json!({"a": 2, "c": [3]}));
        assert!(read(Some(&dir.path().join("none"))).unwrap().is_empty());
        std::fs::write(dir.path().join("c.json"), "[]").unwrap();
        let error = read(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("c.json, which is to be said in provenance"), "{error}");
    }
}
