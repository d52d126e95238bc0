//! Where a build's instructions came from, and addresses without the secrets in them.

use crate::capture::Capture;
use crate::request::ConfigSource;
use crate::statement::{Digests, commit_digest, digests_of};

/// What stands in the place of a name or a password.
const MASK: &str = "xxxxx";

/// An address without user and password.
pub fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_string() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return address.to_string() };
    let masked = match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if user.is_empty() => return address.to_string(),
        None => MASK.to_string(),
    };
    format!("{scheme}://{masked}@{host}{tail}")
}

/// The repository of a context with its branch or commit, without the folder in it.
fn without_subfolder(address: &str) -> String {
    match address.split_once('#') {
        Some((remote, fragment)) => match fragment.split(':').next() {
            Some(name) if !name.is_empty() => format!("{remote}#{name}"),
            _ => remote.to_string(),
        },
        None => address.to_string(),
    }
}

/// Where the instructions came from, with the digest of what was found there.
pub(crate) fn config_source(address: &str, capture: &Capture) -> ConfigSource {
    let whole = redacted(address);
    let repository = without_subfolder(&whole);
    let digest: Option<Digests> = (capture.git.iter().find(|git| git.url == repository))
        .map(|git| commit_digest(&git.commit))
        .or_else(|| {
            let file = capture.http.iter().find(|file| file.url == whole)?;
            Some(digests_of(&[&file.digest]))
        });
    ConfigSource { uri: whole, digest: digest.unwrap_or_default(), path: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_leave_addresses() {
        for (address, shown) in [
            ("https://user:pass@example.invalid/repo.git", "https://xxxxx:xxxxx@example.invalid/repo.git"),
            ("https://token@example.invalid", "https://xxxxx@example.invalid"),
            ("https://example.invalid/a@b", "https://example.invalid/a@b"),
            ("https://example.invalid?q=a@b", "https://example.invalid?q=a@b"),
            ("https://a:b:c@d@host/x", "https://xxxxx:xxxxx@host/x"),
            ("context", "context"),
        ] {
            assert_eq!(redacted(address), shown);
        }
    }

    #[test]
    fn a_folder_of_a_repository_is_no_part_of_what_was_fetched() {
        assert_eq!(without_subfolder("https://h/r.git#main:sub"), "https://h/r.git#main");
        assert_eq!(without_subfolder("https://h/r.git#:sub"), "https://h/r.git");
        assert_eq!(without_subfolder("https://h/r.git"), "https://h/r.git");
    }
}
