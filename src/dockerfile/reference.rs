//! Image names as people and programs write them.

use std::fmt;

use crate::error::{DockerfileError, Result};
use crate::text::is_lower;

/// A name in full: `docker.io/library/alpine:3.20@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Registry and path.
    pub name: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest of a manifest.
    pub digest: Option<String>,
}

const INVALID: &str = "invalid reference format";
/// Longest name, by the distribution specification.
const MAX_NAME: usize = 255;

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(DockerfileError::user(message))
}

impl Reference {
    /// Reads a name, adding the registry and the `library/` that short ones leave out.
    pub fn parse(text: &str) -> Result<Reference> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            let quoted = crate::text::quote::go_quote(text);
            return fail(format!(
                "invalid repository name ({quoted}), cannot specify 64-byte hexadecimal strings"
            ));
        }
        let (host, path) = match text.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" || !is_lower(host) => {
                (host, path)
            }
            _ => ("docker.io", text),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let official = host == "docker.io" && !path.contains('/');
        let path = if official { format!("library/{path}") } else { path.to_owned() };
        let bare = path.split(':').next().unwrap_or_default();
        if !is_lower(bare) {
            return fail(format!("{INVALID}: repository name ({bare}) must be lowercase"));
        }
        Self::parse_full(&format!("{host}/{path}"))
    }

    /// Reads a name as it is.
    pub fn parse_full(text: &str) -> Result<Reference> {
        if text.is_empty() {
            return fail("repository name must have at least one component");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].split_once(':') {
            // `host:port` alone has no slash behind it.
            Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
            None => (rest, None),
        };
        let tag_ok = tag.is_none_or(|tag| {
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            let mut bytes = tag.bytes();
            tag.len() <= 128
                && bytes.next().is_some_and(word)
                && bytes.all(|b| word(b) || b == b'.' || b == b'-')
        });
        if !valid_name(name) || !tag_ok || !digest.is_none_or(like_digest) {
            return fail(INVALID);
        }
        if name.len() > MAX_NAME {
            return fail(format!("repository name must not be more than {MAX_NAME} characters"));
        }
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        let own = |part: &str| part.to_owned();
        Ok(Reference { name: own(name), tag: tag.map(own), digest: digest.map(own) })
    }

    /// With `:latest` when neither tag nor digest is there.
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// With this digest.
    pub fn with_digest(mut self, digest: &str) -> Reference {
        self.digest = Some(digest.to_owned());
        self
    }

    /// As people write it, without what goes without saying.
    pub fn familiar(&self) -> String {
        let name = match self.name.strip_prefix("docker.io/") {
            Some(path) => path.strip_prefix("library/").filter(|p| !p.contains('/')).unwrap_or(path),
            None => &self.name,
        };
        Reference { name: name.to_owned(), ..self.clone() }.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// `[host[:port]/]part/part…`.
fn valid_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':', '[']) || host == "localhost" || !is_lower(host) => {
            if !valid_host(host) {
                return false;
            }
            path
        }
        _ => name,
    };
    path.split('/').all(valid_part)
}

fn valid_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    }
    name.split('.').all(|label| {
        let word = |b: u8| b.is_ascii_alphanumeric();
        let bytes = label.as_bytes();
        !bytes.is_empty()
            && word(bytes[0])
            && word(bytes[bytes.len() - 1])
            && bytes.iter().all(|b| word(*b) || *b == b'-')
    })
}

/// Lower-case words joined by `.`, `_`, `__` or dashes.
fn valid_part(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if bytes.is_empty() || !word(bytes[0]) || !word(bytes[bytes.len() - 1]) {
        return false;
    }
    let separators = bytes.split(|b| word(*b)).filter(|run| !run.is_empty());
    let mut separators =
        separators.map(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'));
    separators.all(|ok| ok)
}

/// Whether it has the form of a digest, of whatever algorithm: `name:hex`.
fn like_digest(digest: &str) -> bool {
    /// The fewest digits that a name may end with.
    const LEAST: usize = 32;
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return false;
    };
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(word)
        && hex.len() >= LEAST
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Checks a digest. Errors are the texts that the field has for them.
pub fn check_digest(digest: &str) -> Result<()> {
    const FORMAT: &str = "invalid checksum digest format";
    let Some((algorithm, hex)) = digest.split_once(':') else {
        return fail(FORMAT);
    };
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let word = |word: &str| !word.is_empty() && word.bytes().all(known);
    let encoded = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    if !algorithm.split(['.', '+', '_', '-']).all(word) || hex.is_empty() || !hex.bytes().all(encoded) {
        return fail(FORMAT);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return fail("unsupported digest algorithm"),
    };
    if hex.len() != length {
        return fail("invalid checksum digest length");
    }
    match hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        true => Ok(()),
        false => fail(FORMAT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("foo/bar:1", "docker.io/foo/bar:1".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("reg:5000/a/b", "reg:5000/a/b:latest".to_owned()),
            ("index.docker.io/x", "docker.io/library/x:latest".to_owned()),
            (&format!("a:1@{digest}"), format!("docker.io/library/a:1@{digest}")),
            (&format!("ghcr.io/a@{digest}"), format!("ghcr.io/a@{digest}")),
        ] {
            let parsed = Reference::parse(text).unwrap().or_latest();
            assert_eq!(parsed.to_string(), want);
        }
        assert_eq!(Reference::parse("docker.io/library/a:x").unwrap().familiar(), "a:x");
        assert_eq!(Reference::parse("b/a").unwrap().familiar(), "b/a");
    }

    #[test]
    fn bad_names_are_refused() {
        for (text, want) in [
            ("", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
            ("a//b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a@SHA256:12", "invalid reference format: repository name (library/a@SHA256) must be lowercase"),
            (&format!("a@sha256:{}", "a".repeat(40)), "invalid checksum digest length"),
            (&format!("a@sha256:{}", "A".repeat(64)), "invalid checksum digest format"),
            (&format!("a@md5:{}", "a".repeat(32)), "unsupported digest algorithm"),
        ] {
            assert_eq!(Reference::parse(text).unwrap_err().to_string(), want, "{text:?}");
        }
    }
}
