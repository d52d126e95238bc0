//! What a build tells about its result, in the form of `--metadata-file`.

use crate::error::ClientError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// JSON with keys in order; a value that is a JSON object in base64 appears as that object.
pub(crate) fn render(response: &BTreeMap<String, String>) -> String {
    let mut out = Map::new();
    for (key, value) in response {
        let object = STANDARD
            .decode(value)
            .ok()
            .and_then(|json| serde_json::from_slice::<Map<String, Value>>(&json).ok());
        let shown = match object {
            Some(object) if !object.is_empty() => Value::Object(object),
            _ => Value::String(value.clone()),
        };
        out.insert(key.clone(), shown);
    }
    let text = serde_json::to_string_pretty(&Value::Object(out)).unwrap_or_default();
    // Such characters stand only inside of texts, where they are escaped as other tools do.
    [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
        .iter()
        .fold(text, |text, (from, to)| if text.contains(*from) { text.replace(*from, to) } else { text })
}

/// Writes a file whole or not at all.
///
/// # Errors
/// The folder is not there or can't be written to.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), ClientError> {
    let failed = |source| ClientError::File { doing: "write".into(), path: path.into(), source };
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = path.with_file_name(format!(".tmp-{name}-{}", std::process::id()));
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The error of the writing is the one to tell.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_base64_are_unpacked() {
        let response = BTreeMap::from([
            ("b".to_owned(), STANDARD.encode(r#"{"z":1,"a":["<"]}"#)),
            ("a".to_owned(), "sha256:00".to_owned()),
            ("c".to_owned(), STANDARD.encode("{}")),
            ("d".to_owned(), STANDARD.encode("[1]")),
        ]);
        assert_eq!(
            render(&response),
            "{\n  \"a\": \"sha256:00\",\n  \"b\": {\n    \"z\": 1,\n    \"a\": [\n      \"\\u003c\"\n    ]\n  },\n  \"c\": \"e30=\",\n  \"d\": \"WzFd\"\n}"
        );
    }

    #[test]
    fn files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.json");
        write_whole(&path, b"1").unwrap();
        write_whole(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_whole(&folder.path().join("no/m.json"), b"").is_err());
    }
}
