//! Names of images, as `distribution/reference` reads and completes them.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry that a name without one means.
const DEFAULT_DOMAIN: &str = "docker.io";
/// An older name of the same.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Where Docker Hub keeps the images that have no owner.
const OFFICIAL: &str = "library/";
/// Longest repository name with its domain.
const MAX_NAME: usize = 255;

/// Why a text is no name of an image. The messages are those of the Docker tools.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// It would, but for capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// It could be the id of an image.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Hexadecimal(String),
    /// It is too long.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// Its digest has an algorithm that nobody uses.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

/// The complete name of an image: registry, repository, and a tag, a digest, both or neither.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name and completes it: `alpine` is `docker.io/library/alpine`. A missing tag stays missing.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::Hexadecimal(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
            true => format!("{OFFICIAL}{path}"),
            false => path.to_owned(),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) && is_path(&path.to_ascii_lowercase()) {
            return Err(ReferenceError::Uppercase(path));
        }
        if !is_domain(&domain) || !is_path(&path) || !tag.is_none_or(is_tag) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        let digest = digest.map(parse_digest).transpose()?;
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// The registry, with its port.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The repository with its registry.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// With `latest` where neither tag nor digest is given.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".into());
        }
        self
    }

    /// With this tag in place of another one.
    ///
    /// # Errors
    /// It is no tag.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        self.tag = Some(tag.into());
        Ok(self)
    }

    /// With this digest.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The repository alone.
    #[must_use]
    pub fn without_tag_and_digest(mut self) -> Self {
        (self.tag, self.digest) = (None, None);
        self
    }

    /// The name as people write it: without what [`Self::parse`] would add.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => match rest.strip_prefix(OFFICIAL) {
                Some(name) if !self.path[OFFICIAL.len()..].contains('/') => name.to_owned(),
                _ => rest.to_owned(),
            },
            None => full,
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first part is a registry if it looks like a host: a dot, a port, `localhost`, or a capital letter.
fn split_domain(text: &str) -> (String, &str) {
    match text.split_once('/') {
        Some((domain, rest))
            if domain.contains(['.', ':'])
                || domain == "localhost"
                || domain.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
            (domain.to_owned(), rest)
        }
        _ => (DEFAULT_DOMAIN.to_owned(), text),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let good = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return good && (port.is_empty() || port.strip_prefix(':').is_some_and(is_number));
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        }
    };
    port.is_none_or(is_number)
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Parts of small letters and digits, which one dot, one or two underscores, or any dashes may separate.
fn is_path(path: &str) -> bool {
    path.split('/').all(|part| {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = part.as_bytes();
        if !bytes.first().is_some_and(|b| alphanumeric(*b)) || !bytes.last().is_some_and(|b| alphanumeric(*b))
        {
            return false;
        }
        bytes.split(|b| alphanumeric(*b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let (algorithm, hex) = text.split_once(':').ok_or(ReferenceError::Format)?;
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.' | b'_' | b'-');
    if algorithm.is_empty()
        || !algorithm.bytes().all(known)
        || hex.len() < 32
        || !hex.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Err(ReferenceError::Format);
    }
    if algorithm != "sha256" {
        return Err(ReferenceError::Algorithm);
    }
    text.parse().map_err(|_| ReferenceError::Format)
}
