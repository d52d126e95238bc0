//! The one form of a source's identifier, whatever way it is written.

use crate::git::canonical;
use crosskit_api::pb::SourceOp;
use crosskit_images::registry::Reference;

/// The identifier of a source in the form that policies are written for: full names of images, and of git
/// repositories host, path, reference and folder without detours. What cannot be read stays as it is; it fails later.
pub fn canonical_identifier(source: &SourceOp) -> String {
    let identifier = &source.identifier;
    let Some((scheme, rest)) = identifier.split_once("://") else { return identifier.clone() };
    let found = match scheme {
        "docker-image" | "docker-image+blob" => Reference::parse(rest).ok().map(|name| name.to_string()),
        "git" => canonical(rest, source.attrs.get("git.fullurl").map(String::as_str)),
        _ => None,
    };
    found.map_or_else(|| identifier.clone(), |found| format!("{scheme}://{found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_one_form() {
        for (identifier, full_url, expected) in [
            ("docker-image://alpine:3", None, "docker-image://docker.io/library/alpine:3"),
            ("docker-image://docker.io/library/a:1", None, "docker-image://docker.io/library/a:1"),
            ("docker-image://UPPER", None, "docker-image://UPPER"),
            ("git://github.com/a/b.git#main:../x/y", None, "git://github.com/a/b.git#main:x/y"),
            ("git://github.com/a/../b.git", None, "git://github.com/b.git"),
            ("git://u:p@host:8080//a%2fb#v1", None, "git://host:8080/a/b#v1"),
            ("git://git@host:a/b.git#:sub", None, "git://host/a/b.git#:sub"),
            ("git://shown/name#v1", Some("ssh://git@host:22/real.git"), "git://host:22/real.git#v1"),
            ("git://shown/name", Some("host/real.git"), "git://host/real.git"),
            ("https://host/a/../b", None, "https://host/a/../b"),
            ("local://context", None, "local://context"),
            ("nothing", None, "nothing"),
        ] {
            let mut source = SourceOp { identifier: identifier.into(), ..SourceOp::default() };
            if let Some(url) = full_url {
                source.attrs.insert("git.fullurl".into(), url.into());
            }
            assert_eq!(canonical_identifier(&source), expected);
        }
    }
}
