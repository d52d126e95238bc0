//! The headers that introduce a session, and the request metadata of its calls.

use crate::SessionError;
use std::collections::HashSet;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// The session's id.
pub const SESSION_ID: &str = "x-docker-expose-session-uuid";
/// The session's name.
pub const SESSION_NAME: &str = "x-docker-expose-session-name";
/// A key that stays the same when the same client comes again with the same folders.
pub const SESSION_SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
/// A method that the client serves; repeated.
pub const SESSION_METHOD: &str = "x-docker-expose-session-grpc-method";
/// Milliseconds: makes health checks as frequent and as strict as that.
const HEALTH_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";

/// Which folder of the client a transfer is about.
pub(crate) const DIR_NAME: &str = "dir-name";
/// Patterns that a path has to match.
pub(crate) const INCLUDE_PATTERNS: &str = "include-patterns";
/// Patterns that a path must not match.
pub(crate) const EXCLUDE_PATTERNS: &str = "exclude-patterns";
/// Paths whose symbolic links are followed and become include patterns.
pub(crate) const FOLLOW_PATHS: &str = "followpaths";
/// In front of what describes an exported file.
pub(crate) const EXPORTER_METADATA: &str = "exporter-md-";
/// Which of the client's outputs a result goes to.
pub(crate) const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Says that all platforms come in one transfer.
pub(crate) const EXPORTER_MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
/// Which of the client's content stores a call is about.
pub const STORE_ID: &str = "buildkit-attachable-store-id";
/// Which of the client's agents a connection goes to.
pub const SSH_ID: &str = "buildkit.ssh.id";
/// Which upload is pulled.
pub(crate) const UPLOAD_PATH: &str = "urlpath";
/// The host that an upload's URL names.
pub(crate) const UPLOAD_HOST: &str = "urlhost";

/// How a session introduces itself.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// See [`SESSION_SHARED_KEY`].
    pub shared_key: String,
    /// Paths of the methods that it serves, in lower case.
    pub methods: HashSet<String>,
    /// How long a health check may take, where the client sets that.
    pub health_timeout: Option<Duration>,
}

impl Introduction {
    /// Reads the headers of a session.
    pub fn from_headers(headers: &http::HeaderMap) -> Result<Introduction, SessionError> {
        let first = |name: &str| {
            headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
        };
        let id = first(SESSION_ID);
        if id.is_empty() {
            return Err(SessionError::Registration(format!("the request has no {SESSION_ID} header")));
        }
        let methods = headers.get_all(SESSION_METHOD).iter();
        Ok(Introduction {
            id,
            name: first(SESSION_NAME),
            shared_key: first(SESSION_SHARED_KEY),
            methods: methods.map(|m| String::from_utf8_lossy(m.as_bytes()).to_lowercase()).collect(),
            // Less than a second would only measure how busy the machine is.
            health_timeout: first(HEALTH_TIMEOUT)
                .parse::<u64>()
                .ok()
                .filter(|ms| *ms > 0)
                .map(|ms| Duration::from_millis(ms.max(1000))),
        })
    }
}

/// Adds `values` under `key`. Where one is not plain ASCII, all of them are written as in a URL's
/// query and a second key says so.
pub(crate) fn put(metadata: &mut MetadataMap, key: &'static str, values: &[String]) {
    let encode = values.iter().any(|v| !v.is_ascii());
    for value in values {
        let text = if encode { escape(value) } else { value.clone() };
        // What remains are control characters, which no header can carry.
        if let Ok(value) = MetadataValue::<Ascii>::try_from(text) {
            metadata.append(key, value);
        }
    }
    if encode {
        let flag = tonic::metadata::MetadataKey::<Ascii>::from_bytes(format!("{key}-encoded").as_bytes());
        metadata.insert(flag.expect("our keys are plain"), MetadataValue::from_static("1"));
    }
}

/// The values under `key`, decoded where they were encoded.
pub(crate) fn take(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let flag = metadata.get(format!("{key}-encoded"));
    let encoded =
        flag.is_some_and(|v| matches!(v.as_bytes(), b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True"));
    let values = metadata.get_all(key);
    let text = values.iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    if encoded { text.map(|v| unescape(&v)).collect() } else { text.collect() }
}

pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = text.get(at + 1..at + 3).and_then(|d| u8::from_str_radix(d, 16).ok());
                // A value that is not what it says it is stands for nothing, as for every peer.
                let Some(byte) = digits else { return String::new() };
                out.push(byte);
                at += 2;
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_through_headers() {
        for values in [vec!["a b", "c%20d"], vec!["grün +%/x", "plain"], vec![]] {
            let values: Vec<String> = values.into_iter().map(String::from).collect();
            let mut metadata = MetadataMap::new();
            put(&mut metadata, INCLUDE_PATTERNS, &values);
            assert_eq!(take(&metadata, INCLUDE_PATTERNS), values);
        }
    }

    #[test]
    fn other_scripts_are_written_as_peers_expect() {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, DIR_NAME, &["é a".to_string()]);
        assert_eq!(metadata.get(DIR_NAME).unwrap(), "%C3%A9+a");
        assert_eq!(metadata.get("dir-name-encoded").unwrap(), "1");
    }

    #[test]
    fn an_introduction_is_read_from_headers() {
        let mut headers = http::HeaderMap::new();
        headers.insert(SESSION_ID, "abc".parse().unwrap());
        headers.append(SESSION_METHOD, "/moby.filesync.v1.FileSync/DiffCopy".parse().unwrap());
        headers.insert(HEALTH_TIMEOUT, "5".parse().unwrap());
        let intro = Introduction::from_headers(&headers).unwrap();
        assert!(intro.methods.contains("/moby.filesync.v1.filesync/diffcopy"));
        assert_eq!(intro.health_timeout, Some(Duration::from_secs(1)));
        assert!(Introduction::from_headers(&http::HeaderMap::new()).is_err());
    }
}
